#!/usr/bin/env bash
# Our own result: what semantic ids are worth, on Amazon Reviews 2018. A two-tower model, ids made from it by every
# quantiser, ids others published, ids from texts alone and ids dealt out at random; a small Qwen3 with random weights
# trained on each; all of them beside every baseline.
#
#   INTERACTION_DATA=….csv TEXT_DATA=….csv ITEM_MODEL_DIR=all-MiniLM-L6-v2 bash scripts/reproduce/amazon_generative.sh
#
# PUBLISHED="name=….index.json …": index files in MiniOneRec's spelling. SPLIT_DATA=….csv: rows somebody else split; then
# seen items stay in the ranking, as MiniOneRec has it. IDS names the ids to train on, of those below.
# SEEDS: of the language models, the first also of all else. TEXT_KEYS: the fields that are read.
# Expected figures and minutes: docs/results.md. Hardware: 2 CPU cores, no GPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/amazon.sh"
PUBLISHED=${PUBLISHED:-}
IDS=${IDS:-rq_kmeans rq_kmeans_balanced rq_vae rq_kmeans_plus text shuffled}
SEEDS=${SEEDS:-${SEED:-42}}
SEED=${SEEDS%% *}
split=()
if [ -n "${SPLIT_DATA:-}" ]; then split=(--split_data "$SPLIT_DATA" --keep_seen); fi

# --- the two-tower model: frozen MiniLM, item ids added
train_two_tower two_tower "${frozen[@]}" ${split[@]+"${split[@]}"} --text_keys "$TEXT_KEYS" --item_id_embedding \
    --num_train_epochs 5 --seed "$SEED" --logging_dir "$LOGGING_DIR/two_tower"
two_tower=$OUTPUT_DIR/two_tower/best_model
"$PYTHON" "$scripts/evaluate_pixelrec.py" --checkpoint "$two_tower" ${split[@]+"${split[@]}"} --output_dir "$OUTPUT_DIR/items"

# --- semantic ids: 3 levels of 256 codes
build() {
    "$PYTHON" "$scripts/build_semantic_ids.py" --output_dir "$OUTPUT_DIR/ids/$1" --logging_dir "$LOGGING_DIR/ids_$1" \
        --overwrite --seed "$SEED" "${@:2}"
}
ids_of=(--matrix_ids "$OUTPUT_DIR/items/item_ids.txt" --interaction_data "$INTERACTION_DATA")
items=("${ids_of[@]}" --matrix "$OUTPUT_DIR/items/item_embeddings.safetensors")
for name in $IDS; do
    case $name in
        text) build text "${data[@]}" --encoder_model_dir "$ITEM_MODEL_DIR" --text_keys "$TEXT_KEYS" --normalise l2 ;;
        rq_vae) build rq_vae "${items[@]}" --quantiser rq_vae ;;
        shuffled) # every item gets the embedding, and so the id, of another
            "$PYTHON" -c 'import sys, numpy as np, safetensors.numpy as files
(table,) = files.load_file(sys.argv[1]).values()
np.save(sys.argv[2], np.random.default_rng(0).permutation(table))' \
                "$OUTPUT_DIR/items/item_embeddings.safetensors" "$OUTPUT_DIR/items/shuffled.npy"
            build shuffled "${ids_of[@]}" --matrix "$OUTPUT_DIR/items/shuffled.npy" --normalise l2
            ;;
        *) build "$name" "${items[@]}" --quantiser "$name" --normalise l2 ;;
    esac
done
for pair in $PUBLISHED; do
    build "${pair%%=*}" --import_index "${pair#*=}" --codec minionerec
done

# --- one language model for each
"$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" --lm_dir "$OUTPUT_DIR/lm" --hidden_size 128 --vocab_size 2048 \
    --seed "$SEED"
checkpoints=(--checkpoint "$two_tower")
for pair in $IDS $PUBLISHED; do
    name=${pair%%=*}
    ids=$OUTPUT_DIR/ids/$name/semantic_ids.json
    "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$OUTPUT_DIR/lm" --output_model_dir "$OUTPUT_DIR/llm/$name" \
        --semantic_ids "$ids" --seed "$SEED" --overwrite
    for seed in $SEEDS; do
        if [ "$seed" = "$SEED" ]; then run=$name; else run=${name}_seed_$seed; fi
        "${launcher[@]}" "$scripts/train_generative.py" "${on_cpu[@]}" ${split[@]+"${split[@]}"} --align False --seed "$seed" \
            --model_dir "$OUTPUT_DIR/llm/$name" --semantic_ids "$ids" --learning_rate 2e-3 --weight_decay 0.05 --dropout 0.2 \
            --valid_users 2000 --topk "5,10" --num_beams 20 --num_train_epochs "${NUM_TRAIN_EPOCHS:-12}" \
            --output_dir "$OUTPUT_DIR/$run" --logging_dir "$LOGGING_DIR/$run"
        checkpoints+=(--checkpoint "$OUTPUT_DIR/$run/best_model")
    done
done
"$PYTHON" "$scripts/compare.py" "${data[@]}" --text_keys "$TEXT_KEYS" ${split[@]+"${split[@]}"} "${checkpoints[@]}" \
    --output_dir "$OUTPUT_DIR/compare" --logging_dir "$LOGGING_DIR/compare" --overwrite
