#!/usr/bin/env bash
# Train a two-tower HLLM and end with a table of test figures.
#
#   bash scripts/run_train_pixelrec.sh                       a demo: synthetic data, tiny towers, no GPU needed
#   INTERACTION_DATA=… TEXT_DATA=… bash scripts/run_train_pixelrec.sh                  your data, tiny towers
#   INTERACTION_DATA=… TEXT_DATA=… ITEM_MODEL_DIR=… USER_MODEL_DIR=… bash scripts/…    your data, your LLMs
#
# Variables set what the flags of the same name set (BATCH_SIZE, EPOCHS, LEARNING_RATE, MAX_SEQ_LENGTH, TEXT_KEYS, …: all
# are in settings.sh; DEMO_USERS: how many users the demo has); further flags go behind the command (python scripts/train_pixelrec.py --help lists them). Paths are
# those of the directory you stand in. HOSTFILE=… trains on several machines. BACKGROUND=1 (or FOREGROUND=0) detaches it.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/settings.sh"
together ITEM_MODEL_DIR USER_MODEL_DIR "tiny towers"
source "$here/prepare_python.sh"
source "$here/launcher.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_pixelrec.py" --help; fi
look_around

LOGGING_DIR=$(given logging_dir "${LOGGING_DIR:-logs/pixelrec}" "$@") # these two are needed to say where to look
OUTPUT_DIR=$(given output_dir "${OUTPUT_DIR:-}" "$@")
SEED=${SEED:-} # of training, of the demo's data and of tiny towers (--seed behind the command: of training alone)
to_make=()
flags=()

if [ -z "${INTERACTION_DATA:-}" ]; then
    INTERACTION_DATA=dataset/demo.csv
    TEXT_DATA=information/demo.csv
    TEXT_KEYS=${TEXT_KEYS:-title,tag,description} # the demo has tags
    OUTPUT_DIR=${OUTPUT_DIR:-results/demo}
    to_make+=(--interaction_data "$INTERACTION_DATA" ${DEMO_USERS:+--users "$DEMO_USERS"})
    if [ "$OUTPUT_DIR" = results/demo ]; then flags+=(--overwrite); fi # the demo replaces itself, and nothing else
fi
OUTPUT_DIR=${OUTPUT_DIR:-results/pixelrec}

if [ -z "${ITEM_MODEL_DIR:-}" ]; then # two tiny Qwen3 with random weights, their tokenizer trained on the texts
    towers=results/tiny_towers/$(basename "$TEXT_DATA" .csv)
    # shellcheck disable=SC2034 # add_flags reads it
    ITEM_MODEL_DIR=$towers/item_llm USER_MODEL_DIR=$towers/user_llm
    to_make+=(--towers_dir "$towers")
    # Random weights want larger steps than a pretrained LLM, and know no instructions.
    PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-16}
    LEARNING_RATE=${LEARNING_RATE:-2e-3}
    MAX_TEXT_LENGTH=${MAX_TEXT_LENGTH:-64}
    GRADIENT_CHECKPOINTING=${GRADIENT_CHECKPOINTING:-False}
    ITEM_PROMPT=${ITEM_PROMPT-}
fi
if [ ${#to_make[@]} -gt 0 ]; then
    "$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" "${to_make[@]}" ${SEED:+--seed "$SEED"}
fi

# shellcheck disable=SC2086 # lists of words
add_flags INTERACTION_DATA TEXT_DATA TEXT_KEYS NUM_TRAIN_EPOCHS LEARNING_RATE OUTPUT_DIR LOGGING_DIR \
    $of_any_training $of_two_towers
flags+=(${ITEM_PROMPT+--item_prompt "$ITEM_PROMPT"} ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"} "$@")

echo "== plan"
"$PYTHON" "$scripts/train_pixelrec.py" --dry_run "$NUM_GPUS" "${flags[@]}"

launcher_for "$NUM_GPUS" "$gpus"
launch=("${launcher[@]}" "$scripts/train_pixelrec.py" "${flags[@]}")
show_log "$LOGGING_DIR"
if wants_background; then
    in_background run_ranks "${launch[@]}"
    echo "tail -f ${LOGGING_DIR}_train.log        # errors at the start: ${LOGGING_DIR}_launch.log"
    exit 0
fi

echo "== training: $NUM_GPUS ranks x ${OMP_NUM_THREADS:-all} threads; from elsewhere: tail -f ${LOGGING_DIR}_train.log"
run_ranks "${launch[@]}"
if [ -n "$stopped_by" ]; then exit 0; fi # it has said how to go on
cat <<EOT

Next:
  $PYTHON $scripts/evaluate_pixelrec.py --checkpoint $OUTPUT_DIR/best_model --split valid --topk 1,10,100
  $PYTHON -m tensorboard.main --logdir logs/tensorboard
  INTERACTION_DATA=dataset/yours.csv TEXT_DATA=information/yours.csv TEXT_KEYS=title,description OUTPUT_DIR=results/yours bash $scripts/run_train_pixelrec.sh
EOT
