#!/usr/bin/env bash
# Our own result: what semantic ids are worth, on Amazon Reviews 2018. A two-tower model, ids made from it by every
# quantiser, ids others published, ids from texts alone and ids dealt out at random; a small Qwen3 with random weights
# trained on each; all of them beside every baseline.
#
#   INTERACTION_DATA=….csv TEXT_DATA=….csv ITEM_MODEL_DIR=all-MiniLM-L6-v2 bash scripts/reproduce/amazon_generative.sh
#
# PUBLISHED="name=….index.json …": index files in MiniOneRec's spelling. SPLIT_DATA=….csv: rows somebody else split; then
# seen items stay in the ranking, as MiniOneRec has it. IDS names the ids to train on, of those below.
# Expected figures and minutes: README, "Results". Hardware: 2 CPU cores, no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/prepare_python.sh
: "${INTERACTION_DATA:?set it to the interaction CSV}" "${TEXT_DATA:?set it to the item CSV}"
: "${ITEM_MODEL_DIR:?set it to the directory of all-MiniLM-L6-v2}"
PUBLISHED=${PUBLISHED:-}
SPLIT_DATA=${SPLIT_DATA:-}
IDS=${IDS:-rq_kmeans rq_kmeans_balanced rq_vae rq_kmeans_plus text shuffled}
SEED=${SEED:-42}
NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-12}
OUTPUT_DIR=${OUTPUT_DIR:-results/amazon_generative}
LOGGING_DIR=${LOGGING_DIR:-logs/amazon_generative}

data=(--interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA")
fields=title,tag,description
split=()
if [ -n "$SPLIT_DATA" ]; then split=(--split_data "$SPLIT_DATA" --keep_seen); fi
common=("${data[@]}" ${split[@]+"${split[@]}"} --bf16 False --gradient_checkpointing False --dataloader_num_workers 0
    --per_device_train_batch_size 64 --save_total_limit 1 --seed "$SEED" --overwrite)

# --- the two-tower model: frozen MiniLM, item ids added, a 2-layer user LLM from scratch
"$PYTHON" scripts/make_demo.py --text_data "$TEXT_DATA" --towers_dir "$OUTPUT_DIR/towers" --hidden_size 384
"$PYTHON" scripts/train_pixelrec.py "${common[@]}" --text_keys $fields --item_prompt "" --item_emb_token_n 0 \
    --max_text_length 256 --item_model_dir "$ITEM_MODEL_DIR" --freeze_item_llm --item_id_embedding \
    --user_model_dir "$OUTPUT_DIR/towers/user_llm" --num_negatives 4096 --learning_rate 1e-3 --history_dropout 0.3 \
    --num_train_epochs 5 --output_dir "$OUTPUT_DIR/two_tower" --logging_dir "$LOGGING_DIR/two_tower"
two_tower=$OUTPUT_DIR/two_tower/best_model
"$PYTHON" scripts/evaluate_pixelrec.py --checkpoint "$two_tower" ${split[@]+"${split[@]}"} --output_dir "$OUTPUT_DIR/items"

# --- semantic ids: 3 levels of 256 codes
build() {
    "$PYTHON" scripts/build_semantic_ids.py --output_dir "$OUTPUT_DIR/ids/$1" --logging_dir "$LOGGING_DIR/ids_$1" \
        --overwrite --seed "$SEED" "${@:2}"
}
ids_of=(--matrix_ids "$OUTPUT_DIR/items/item_ids.txt" --interaction_data "$INTERACTION_DATA")
items=("${ids_of[@]}" --matrix "$OUTPUT_DIR/items/item_embeddings.safetensors")
for name in $IDS; do
    case $name in
        text) build text "${data[@]}" --encoder_model_dir "$ITEM_MODEL_DIR" --text_keys $fields --normalise l2 ;;
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
"$PYTHON" scripts/make_demo.py --text_data "$TEXT_DATA" --lm_dir "$OUTPUT_DIR/lm" --hidden_size 128 --vocab_size 2048 \
    --seed "$SEED"
checkpoints=(--checkpoint "$two_tower")
for pair in $IDS $PUBLISHED; do
    name=${pair%%=*}
    ids=$OUTPUT_DIR/ids/$name/semantic_ids.json
    "$PYTHON" scripts/expand_vocabulary.py --hf_model_dir "$OUTPUT_DIR/lm" --output_model_dir "$OUTPUT_DIR/llm/$name" \
        --semantic_ids "$ids" --seed "$SEED" --overwrite
    "$PYTHON" scripts/train_generative.py "${common[@]}" --align False --model_dir "$OUTPUT_DIR/llm/$name" \
        --semantic_ids "$ids" --learning_rate 2e-3 --weight_decay 0.05 --dropout 0.2 --valid_users 2000 \
        --topk 5,10 --num_beams 20 \
        --num_train_epochs "$NUM_TRAIN_EPOCHS" --output_dir "$OUTPUT_DIR/$name" --logging_dir "$LOGGING_DIR/$name"
    checkpoints+=(--checkpoint "$OUTPUT_DIR/$name/best_model")
done
"$PYTHON" scripts/compare.py "${data[@]}" --text_keys $fields ${split[@]+"${split[@]}"} "${checkpoints[@]}" \
    --output_dir "$OUTPUT_DIR/compare" --logging_dir "$LOGGING_DIR/compare" --overwrite
