#!/usr/bin/env bash
# Train a two-tower HLLM and end with a table of test figures.
#
#   bash scripts/run_train_pixelrec.sh                       a demo: synthetic data, tiny towers, no GPU needed
#   INTERACTION_DATA=… TEXT_DATA=… bash scripts/run_train_pixelrec.sh                  your data, tiny towers
#   INTERACTION_DATA=… TEXT_DATA=… ITEM_MODEL_DIR=… USER_MODEL_DIR=… bash scripts/…    your data, your LLMs
#
# Every variable below can be set from the environment; further flags go behind the command
# (python scripts/train_pixelrec.py --help lists them all). BACKGROUND=1 (or FOREGROUND=0) detaches the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/prepare_python.sh
source scripts/launcher.sh
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" scripts/train_pixelrec.py --help ;; esac

# --- data: unset = the demo is made in dataset/demo.csv and information/demo.csv
INTERACTION_DATA=${INTERACTION_DATA:-}
TEXT_DATA=${TEXT_DATA:-}
# --- models: unset = two tiny Qwen3 towers with random weights, tokenizer trained on the texts
ITEM_MODEL_DIR=${ITEM_MODEL_DIR:-}
USER_MODEL_DIR=${USER_MODEL_DIR:-}

gpus=$(count_gpus)
cores=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
if [ "$gpus" -gt 0 ]; then NUM_GPUS=${NUM_GPUS:-$gpus}; else NUM_GPUS=${NUM_GPUS:-2}; fi # on CPU: ranks
case $NUM_GPUS in
*[!0-9]* | 0 | "")
    echo "error: NUM_GPUS must be a number of ranks, at least 1, got '$NUM_GPUS'." >&2
    exit 2
    ;;
esac
if [ -z "$ITEM_MODEL_DIR$USER_MODEL_DIR" ]; then tiny=1; else tiny=; fi

# --- settings; tiny towers start from random weights and want larger steps than a pretrained LLM
if [ -z "$INTERACTION_DATA$TEXT_DATA" ]; then TEXT_KEYS=${TEXT_KEYS:-title,tag,description}; fi # the demo has tags
TEXT_KEYS=${TEXT_KEYS:-title,description}
if [ -n "$tiny" ]; then ITEM_PROMPT=${ITEM_PROMPT-}; fi # random weights know no instructions
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-${tiny:+16}}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-4}
NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-5}
LEARNING_RATE=${LEARNING_RATE:-${tiny:+2e-3}}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-11}
MAX_TEXT_LENGTH=${MAX_TEXT_LENGTH:-${tiny:+64}}
MAX_TEXT_LENGTH=${MAX_TEXT_LENGTH:-256}
GRADIENT_CHECKPOINTING=${GRADIENT_CHECKPOINTING:-${tiny:+False}}
GRADIENT_CHECKPOINTING=${GRADIENT_CHECKPOINTING:-True}
if [ "$gpus" -gt 0 ]; then BF16=${BF16:-True}; else BF16=${BF16:-False}; fi
DATALOADER_NUM_WORKERS=${DATALOADER_NUM_WORKERS:-$((cores > 2 * NUM_GPUS ? 4 : 1))}
SEED=${SEED:-42} # of training, of the demo's data and of tiny towers (--seed behind the command: of training alone)
DEEPSPEED_CONFIG=${DEEPSPEED_CONFIG:-configs/ds_config_zero2.json}
LOGGING_DIR=${LOGGING_DIR:-logs/pixelrec}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / NUM_GPUS > 1 ? cores / NUM_GPUS : 1))}
if [ "$gpus" -eq 0 ]; then export DS_ACCELERATOR=cpu; fi

# --- what is missing is made
overwrite=()
if [ -z "$INTERACTION_DATA" ] && [ -z "$TEXT_DATA" ]; then
    INTERACTION_DATA=dataset/demo.csv
    TEXT_DATA=information/demo.csv
    OUTPUT_DIR=${OUTPUT_DIR:-results/demo}
    case " $* " in # the demo replaces itself, and nothing else
    *" --output_dir"*) ;;
    *) if [ "$OUTPUT_DIR" = results/demo ]; then overwrite=(--overwrite); fi ;;
    esac
    "$PYTHON" scripts/make_demo.py --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --seed "$SEED"
elif [ -z "$INTERACTION_DATA" ] || [ -z "$TEXT_DATA" ]; then
    echo "error: INTERACTION_DATA and TEXT_DATA belong together; set both, or none for the demo." >&2
    exit 2
fi
OUTPUT_DIR=${OUTPUT_DIR:-results/pixelrec}
if [ -n "$tiny" ]; then
    towers=results/tiny_towers/$(basename "$TEXT_DATA" .csv)
    ITEM_MODEL_DIR=$towers/item_llm
    USER_MODEL_DIR=$towers/user_llm
    "$PYTHON" scripts/make_demo.py --text_data "$TEXT_DATA" --towers_dir "$towers" --seed "$SEED"
elif [ -z "$ITEM_MODEL_DIR" ] || [ -z "$USER_MODEL_DIR" ]; then
    echo "error: ITEM_MODEL_DIR and USER_MODEL_DIR belong together; set both, or none for tiny towers." >&2
    exit 2
fi

flags=(
    --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --text_keys "$TEXT_KEYS"
    --item_model_dir "$ITEM_MODEL_DIR" --user_model_dir "$USER_MODEL_DIR"
    --per_device_train_batch_size "$PER_DEVICE_TRAIN_BATCH_SIZE" --num_train_epochs "$NUM_TRAIN_EPOCHS"
    --learning_rate "$LEARNING_RATE" --max_seq_length "$MAX_SEQ_LENGTH" --max_text_length "$MAX_TEXT_LENGTH"
    --gradient_checkpointing "$GRADIENT_CHECKPOINTING" --bf16 "$BF16" --seed "$SEED"
    --dataloader_num_workers "$DATALOADER_NUM_WORKERS" --deepspeed "$DEEPSPEED_CONFIG"
    --output_dir "$OUTPUT_DIR" --logging_dir "$LOGGING_DIR" ${ITEM_PROMPT+--item_prompt "$ITEM_PROMPT"}
    ${overwrite[@]+"${overwrite[@]}"} "$@"
)

echo "== plan"
"$PYTHON" scripts/train_pixelrec.py --dry_run "$NUM_GPUS" "${flags[@]}"

launcher_for "$NUM_GPUS" "$gpus"
launch=("${launcher[@]}" scripts/train_pixelrec.py "${flags[@]}")

if [ "${BACKGROUND:-0}" = 1 ] || [ "${FOREGROUND:-1}" = 0 ]; then
    mkdir -p "$(dirname "$LOGGING_DIR")"
    (
        trap '' HUP
        run_ranks "${launch[@]}"
    ) >"${LOGGING_DIR}_launch.log" 2>&1 </dev/null &
    echo "== training in the background, process $!   (stop it: kill $!   it saves first)"
    echo "tail -f ${LOGGING_DIR}_train.log        # errors at the start: ${LOGGING_DIR}_launch.log"
    exit 0
fi

echo "== training: $NUM_GPUS ranks x $OMP_NUM_THREADS threads; from elsewhere: tail -f ${LOGGING_DIR}_train.log"
run_ranks "${launch[@]}"
if [ -n "$stopped_by" ]; then exit 0; fi # it has said how to go on
cat <<EOF

Next:
  $PYTHON scripts/evaluate_pixelrec.py --checkpoint $OUTPUT_DIR/best_model --split valid --topk 1,10,100
  $PYTHON -m tensorboard.main --logdir logs/tensorboard
  INTERACTION_DATA=dataset/yours.csv TEXT_DATA=information/yours.csv TEXT_KEYS=title,description OUTPUT_DIR=results/yours bash scripts/run_train_pixelrec.sh
EOF
