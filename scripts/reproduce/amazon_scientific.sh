#!/usr/bin/env bash
# Our own result: a two-tower model on Amazon Reviews 2018, Industrial and Scientific, on a CPU, beside every baseline.
# Frozen item LLM (its embeddings are computed once), item ids added, a 2-layer user LLM from scratch.
#
#   INTERACTION_DATA=….csv TEXT_DATA=….csv ITEM_MODEL_DIR=all-MiniLM-L6-v2 bash scripts/reproduce/amazon_scientific.sh
#
# ITEM_MODEL_DIR: the Hugging Face directory of sentence-transformers/all-MiniLM-L6-v2 (22.7 M parameters).
# SEEDS: of the model with texts and ids, the first also of the others. TEXT_KEYS: the fields that are read.
# Expected figures, seeds and minutes: docs/results.md. Hardware: 2 CPU cores, no GPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/amazon.sh"
NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-5}
SEEDS=${SEEDS:-42 1 2}

checkpoints=() joined=''
# train NAME FLAGS…
train() {
    train_two_tower "$1" --num_train_epochs "$NUM_TRAIN_EPOCHS" --seed "${SEEDS%% *}" --logging_dir "$LOGGING_DIR" "${@:2}"
    checkpoints+=(--checkpoint "$OUTPUT_DIR/$1/best_model")
}
for seed in $SEEDS; do
    train "text_ids_$seed" "${frozen[@]}" --text_keys "$TEXT_KEYS" --item_id_embedding --seed "$seed"
    joined+=${joined:++}$OUTPUT_DIR/text_ids_$seed/best_model
done
train text "${frozen[@]}" --text_keys "$TEXT_KEYS"
train text_title "${frozen[@]}" --text_keys title
train ids --id_only --num_train_epochs $((2 * NUM_TRAIN_EPOCHS))

# Does pretraining help? Both towers trained, from the pretrained item LLM and from the same one with random weights.
# Fewer tokens, negatives and epochs: here the item LLM reads at every step.
together=(--item_model_dir "$ITEM_MODEL_DIR" --text_keys title --max_text_length 24 --num_negatives 128
    --learning_rate 3e-4 --num_train_epochs 1 --bf16 True)
train joint_pretrained "${together[@]}"
train joint_random "${together[@]}" --random_init item

# Joined: all seeds, and the same with ids alone (which reads no text, so it errs elsewhere).
case $joined in *+*) checkpoints+=(--checkpoint "$joined") ;; esac
"$PYTHON" "$scripts/compare.py" "${data[@]}" --text_keys "$TEXT_KEYS" "${checkpoints[@]}" \
    --checkpoint "$joined+$OUTPUT_DIR/ids/best_model" --output_dir "$OUTPUT_DIR/compare" --logging_dir "$LOGGING_DIR" --overwrite
