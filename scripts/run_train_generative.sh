#!/usr/bin/env bash
# From two CSV files to a table with popularity, a two-tower HLLM and a generative model beside each other.
#
#   bash scripts/run_train_generative.sh                     a demo: synthetic data, tiny models, no GPU needed
#   INTERACTION_DATA=… TEXT_DATA=… LLM_DIR=… TWO_TOWER=…/best_model bash scripts/…      your data, your Qwen3
#
# Every step is a command of its own. Without TWO_TOWER the two-tower model is trained first, by run_train_pixelrec.sh,
# which takes the same variables; its item LLM gives the embeddings that become semantic ids. Without LLM_DIR the language
# model is a small Qwen3 with random weights. Stage 1 trains the rows of the new words alone, stage 2 everything; EPOCHS
# and flags behind the command are those of stage 2. HOSTFILE and BACKGROUND=1 as there.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/settings.sh"
if [ -n "${TWO_TOWER:-}" ]; then
    for name in $of_two_towers; do
        if [ -n "${!name:-}" ]; then refuse "$name is set, but with TWO_TOWER no two-tower model is trained; unset one."; fi
    done
fi
source "$here/prepare_python.sh"
source "$here/launcher.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_generative.py" --help; fi

LOGGING_DIR=${LOGGING_DIR:-logs/generative}
if wants_background; then
    export BACKGROUND=0 FOREGROUND=1
    in_background exec bash "$0" "$@"
    echo "tail -f ${LOGGING_DIR}_launch.log"
    exit 0
fi

demo='' small=''
if [ -z "${INTERACTION_DATA:-}" ]; then demo=1; fi
if [ -z "${LLM_DIR:-}" ]; then small=1; fi
OUTPUT_DIR=${OUTPUT_DIR:-results/${demo:+demo_}generative}

# A signal ends the running command, which saves if it trains, and then this script.
step() {
    run_ranks "$@"
    if [ -n "$stopped_by" ]; then exit 0; fi
}

if [ -z "${TWO_TOWER:-}" ]; then
    echo "== 1 of 6: two-tower model, whose item LLM embeds the catalogue"
    two_tower=$OUTPUT_DIR/two_tower two_tower_log=${LOGGING_DIR}_two_tower
    if [ -n "$demo" ]; then two_tower=results/demo two_tower_log=logs/pixelrec; fi # that of the other script
    step env OUTPUT_DIR="$two_tower" LOGGING_DIR="$two_tower_log" bash "$here/run_train_pixelrec.sh"
    TWO_TOWER=$two_tower/best_model
fi

look_around
flags=() overwrite=()
if [ "$OUTPUT_DIR" = results/demo_generative ]; then overwrite=(--overwrite); fi # the demo replaces itself, and nothing else
case " $* " in *" --overwrite "*) overwrite=(--overwrite) ;; esac                # unless told
NUM_TRAIN_EPOCHS=${STAGE2_EPOCHS:-${NUM_TRAIN_EPOCHS:-}}
if [ -n "$demo" ]; then
    INTERACTION_DATA=dataset/demo.csv
    TEXT_DATA=information/demo.csv
    TEXT_KEYS=${TEXT_KEYS:-title,tag,description}
    CODEBOOK_SIZE=${CODEBOOK_SIZE:-32}
fi
if [ -n "$small" ]; then # from scratch it needs larger steps and, with more data than the demo's, more epochs and dropout
    LEARNING_RATE_STAGE1=${LEARNING_RATE_STAGE1:-5e-3}
    LEARNING_RATE=${LEARNING_RATE:-2e-3}
    GRADIENT_CHECKPOINTING=${GRADIENT_CHECKPOINTING:-False}
    MAX_TEXT_LENGTH=${MAX_TEXT_LENGTH:-32}
    flags+=(--num_beams 20)
    if [ -n "$demo" ]; then
        PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-16}
    else
        PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-32}
        NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-12}
        WEIGHT_DECAY=${WEIGHT_DECAY:-0.05}
        flags+=(--dropout 0.2 --valid_users 2000)
    fi
fi
ids=$OUTPUT_DIR/semantic_ids/semantic_ids.json
# shellcheck disable=SC2086 # a list of words
add_flags INTERACTION_DATA TEXT_DATA TEXT_KEYS $of_any_training
train=("$scripts/train_generative.py" "${flags[@]}" --semantic_ids "$ids" ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"})

echo "== 2 of 6: semantic ids"
flags=(--checkpoint "$TWO_TOWER" --output_dir "$OUTPUT_DIR/semantic_ids" --logging_dir "${LOGGING_DIR}_ids")
add_flags INTERACTION_DATA TEXT_DATA QUANTISER LEVELS CODEBOOK_SIZE SEED
step "$PYTHON" "$scripts/build_semantic_ids.py" "${flags[@]}" ${overwrite[@]+"${overwrite[@]}"}

if [ -n "$small" ]; then
    LLM_DIR=$OUTPUT_DIR/tiny_llm
    step "$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" --lm_dir "$LLM_DIR" ${SEED:+--seed "$SEED"} \
        --hidden_size "$([ -n "$demo" ] && echo 64 || echo 128)"
fi
echo "== 3 of 6: a word for every code"
step "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$LLM_DIR" --output_model_dir "$OUTPUT_DIR/llm" \
    --semantic_ids "$ids" ${SEED:+--seed "$SEED"} ${overwrite[@]+"${overwrite[@]}"}

# train_stage LOGGING_DIR FLAGS…
train_stage() {
    launcher_for "$NUM_GPUS" "$gpus"
    show_log "$1"
    step "${launcher[@]}" "${train[@]}" ${overwrite[@]+"${overwrite[@]}"} --logging_dir "$@"
}

echo "== 4 of 6: stage 1, the rows of the new words alone"
train_stage "${LOGGING_DIR}_stage1" --output_dir "$OUTPUT_DIR/stage1" --model_dir "$OUTPUT_DIR/llm" --new_rows_only \
    --num_train_epochs "${STAGE1_EPOCHS:-1}" --learning_rate "${LEARNING_RATE_STAGE1:-1e-3}"

echo "== 5 of 6: stage 2, everything"
flags=(--output_dir "$OUTPUT_DIR/stage2" --model_dir "$OUTPUT_DIR/stage1/best_model/llm" --beside "$TWO_TOWER")
add_flags NUM_TRAIN_EPOCHS LEARNING_RATE
train_stage "$LOGGING_DIR" "${flags[@]}" "$@"

echo "== 6 of 6: does the exported model hold what it promises"
step env HF_MODEL_DIR="$OUTPUT_DIR/stage2/best_model/llm" BEFORE="$OUTPUT_DIR/llm" SEMANTIC_IDS="$ids" \
    bash "$here/test_hf_model.sh"
cp "$OUTPUT_DIR/stage2/table.json" "$OUTPUT_DIR/stage2/table.md" "$OUTPUT_DIR/"
echo
cat "$OUTPUT_DIR/table.md"
