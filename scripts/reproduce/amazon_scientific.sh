#!/usr/bin/env bash
# Our own result: a two-tower model on Amazon Reviews 2018, Industrial and Scientific, on a CPU, beside every baseline.
# Frozen item LLM (its embeddings are computed once), item ids added, a 2-layer user LLM from scratch.
#
#   INTERACTION_DATA=….csv TEXT_DATA=….csv ITEM_MODEL_DIR=all-MiniLM-L6-v2 bash scripts/reproduce/amazon_scientific.sh
#
# ITEM_MODEL_DIR: the Hugging Face directory of sentence-transformers/all-MiniLM-L6-v2 (22.7 M parameters).
# Expected figures, seeds and minutes: README, "Results". Hardware: 2 CPU cores, no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/prepare_python.sh
: "${INTERACTION_DATA:?set it to the interaction CSV}" "${TEXT_DATA:?set it to the item CSV}"
: "${ITEM_MODEL_DIR:?set it to the directory of all-MiniLM-L6-v2}"
OUTPUT_DIR=${OUTPUT_DIR:-results/amazon_scientific}
LOGGING_DIR=${LOGGING_DIR:-logs/amazon_scientific}
NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-5}

"$PYTHON" scripts/make_demo.py --text_data "$TEXT_DATA" --towers_dir "$OUTPUT_DIR/towers" --hidden_size 384

# train NAME FLAGS…
train() {
    "$PYTHON" scripts/train_pixelrec.py \
        --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --item_prompt "" --item_emb_token_n 0 \
        --max_text_length 256 --user_model_dir "$OUTPUT_DIR/towers/user_llm" \
        --per_device_train_batch_size 64 --num_negatives 4096 --learning_rate 1e-3 --history_dropout 0.3 \
        --num_train_epochs "$NUM_TRAIN_EPOCHS" --bf16 False --gradient_checkpointing False \
        --dataloader_num_workers 0 --save_total_limit 1 --overwrite \
        --output_dir "$OUTPUT_DIR/$1" --logging_dir "$LOGGING_DIR" "${@:2}"
}
frozen=(--item_model_dir "$ITEM_MODEL_DIR" --freeze_item_llm)
fields=title,tag,description

checkpoints=()
for seed in 42 1 2; do
    train "text_ids_$seed" "${frozen[@]}" --text_keys $fields --item_id_embedding --seed $seed
done
train text "${frozen[@]}" --text_keys $fields
train text_title "${frozen[@]}" --text_keys title
train ids --id_only --num_train_epochs $((2 * NUM_TRAIN_EPOCHS))

# Does pretraining help? Both towers trained, from the pretrained item LLM and from the same one with random weights.
# Fewer tokens, negatives and epochs: here the item LLM reads at every step.
together=(--item_model_dir "$ITEM_MODEL_DIR" --text_keys title --max_text_length 24 --num_negatives 128
    --learning_rate 3e-4 --num_train_epochs 1 --bf16 True)
train joint_pretrained "${together[@]}"
train joint_random "${together[@]}" --random_init item

for name in text_ids_42 text_ids_1 text_ids_2 text text_title ids joint_pretrained joint_random; do
    checkpoints+=(--checkpoint "$OUTPUT_DIR/$name/best_model")
done
# Joined: three seeds, and the same three with ids alone (which reads no text, so it errs elsewhere).
seeds=$OUTPUT_DIR/text_ids_42/best_model+$OUTPUT_DIR/text_ids_1/best_model+$OUTPUT_DIR/text_ids_2/best_model
"$PYTHON" scripts/compare.py --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --text_keys $fields \
    "${checkpoints[@]}" --checkpoint "$seeds" --checkpoint "$seeds+$OUTPUT_DIR/ids/best_model" \
    --output_dir "$OUTPUT_DIR/compare" --logging_dir "$LOGGING_DIR" --overwrite
