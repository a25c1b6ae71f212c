# shellcheck shell=bash
# Sourced by amazon_*.sh: what is set, and the two-tower model that they train.
: "${INTERACTION_DATA:?set it to the interaction CSV}" "${TEXT_DATA:?set it to the item CSV}"
if [ -z "${WITHOUT_LLM:-}" ]; then : "${ITEM_MODEL_DIR:?set it to the directory of all-MiniLM-L6-v2}"; fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1 # paths are the repository's
# shellcheck source=../prepare_python.sh
source scripts/prepare_python.sh
# shellcheck source=../launcher.sh
source scripts/launcher.sh
run=$(basename "$0" .sh)
OUTPUT_DIR=${OUTPUT_DIR:-results/$run}
LOGGING_DIR=${LOGGING_DIR:-logs/$run}
TEXT_KEYS=${TEXT_KEYS:-title,tag,description}

# One process on the CPU; with HOSTFILE its ranks, which share the batch.
ranks=1 launcher=("$PYTHON")
if [ -n "${HOSTFILE:-}" ]; then
    ranks=$(ranks_of_hostfile)
    if [ $((64 % ranks)) -ne 0 ]; then
        echo "error: HOSTFILE $HOSTFILE has $ranks slots, which do not share a batch of 64 windows; give it 1, 2, 4, … 64." >&2
        exit 2
    fi
    launcher_for "$ranks" 0
fi

# shellcheck disable=SC2034 # for who sources this
{
    data=(--interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA")
    frozen=(--item_model_dir "${ITEM_MODEL_DIR:-}" --freeze_item_llm) # its embeddings are computed once
    on_cpu=("${data[@]}" --bf16 False --gradient_checkpointing False --dataloader_num_workers 0
        --per_device_train_batch_size $((64 / ranks)) --save_total_limit 1 --overwrite)
}

# train_two_tower NAME FLAGS…: a 2-layer user LLM from scratch; the flags name the item tower, texts and epochs.
train_two_tower() {
    "${launcher[@]}" "$scripts/train_pixelrec.py" "${on_cpu[@]}" --item_prompt "" --item_emb_token_n 0 \
        --max_text_length 256 --user_model_dir "$OUTPUT_DIR/towers/user_llm" --num_negatives 4096 \
        --learning_rate 1e-3 --history_dropout 0.3 --output_dir "$OUTPUT_DIR/$1" "${@:2}"
}

"$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" --towers_dir "$OUTPUT_DIR/towers" --hidden_size "${WIDTH:-384}"
