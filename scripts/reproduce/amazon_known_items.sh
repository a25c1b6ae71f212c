#!/usr/bin/env bash
# Our own result: one two-tower model that starts from what ItemKNN (or EASE^R) and TF-IDF know, on Amazon Reviews 2018, on a CPU,
# beside every baseline. One user vector and one item vector; a 2-layer user LLM from scratch.
#
#   INTERACTION_DATA=….csv TEXT_DATA=….csv ITEM_MODEL_DIR=all-MiniLM-L6-v2 bash scripts/reproduce/amazon_known_items.sh
#
# Without ITEM_MODEL_DIR no language model reads the items: they are their TF-IDF, co-occurrence and id vectors.
# SPLIT_DATA=….csv: rows somebody else split; then seen items stay in the ranking, as MiniOneRec has it.
# SEEDS: the first also of the baselines. WIDTH: of the user LLM. TEXT_KEYS: the fields that are read.
# Expected figures, seeds and minutes: docs/results.md. Hardware: 2 CPU cores, no GPU.
set -euo pipefail
WIDTH=${WIDTH:-128} WITHOUT_LLM=1
source "$(dirname "${BASH_SOURCE[0]}")/amazon.sh"
SEEDS=${SEEDS:-42}
offsets=item_knn,tfidf split=() exact=() checkpoints=() joined=''
if [ -n "${SPLIT_DATA:-}" ]; then
    offsets=ease,tfidf,last,seen split=(--split_data "$SPLIT_DATA" --keep_seen) MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-11}
    exact=(--offset_width 5000) # a column for each item: seen items are candidates, and what they add to themselves is no SVD's to cut
fi
items=("${frozen[@]}" --item_prompt "" --item_emb_token_n 0 --max_text_length 128)
if [ -z "${ITEM_MODEL_DIR:-}" ]; then items=(--id_only); fi

for seed in $SEEDS; do
    "${launcher[@]}" "$scripts/train_pixelrec.py" "${on_cpu[@]}" ${split[@]+"${split[@]}"} --text_keys "$TEXT_KEYS" \
        "${items[@]}" --user_model_dir "$OUTPUT_DIR/towers/user_llm" --item_id_embedding \
        --offsets "$offsets" ${exact[@]+"${exact[@]}"} --item_features tfidf,cooccurrence --full_softmax \
        --max_seq_length "${MAX_SEQ_LENGTH:-21}" --learning_rate 1e-3 --weight_decay 0.05 --history_dropout 0.3 \
        --num_train_epochs 12 --patience 2 --seed "$seed" --output_dir "$OUTPUT_DIR/seed_$seed" --logging_dir "$LOGGING_DIR/seed_$seed"
    checkpoints+=(--checkpoint "$OUTPUT_DIR/seed_$seed/best_model")
    joined+=${joined:++}$OUTPUT_DIR/seed_$seed/best_model
done
case $joined in *+*) checkpoints+=(--checkpoint "$joined") ;; esac
"$PYTHON" "$scripts/compare.py" "${data[@]}" --text_keys "$TEXT_KEYS" ${split[@]+"${split[@]}"} "${checkpoints[@]}" \
    --output_dir "$OUTPUT_DIR/compare" --logging_dir "$LOGGING_DIR/compare" --overwrite
