#!/usr/bin/env bash
# SFT, then reinforcement learning behind it, and a table with both: SFT -> GRPO on semantic ids.
#
#   bash scripts/run_rl.sh                                              the demo: synthetic data, tiny models, no GPU needed
#   INTERACTION_DATA=… TEXT_DATA=… MODEL_DIR=…/best_model/llm SEMANTIC_IDS=… HISTORY=50 bash scripts/run_rl.sh    your own
#
# MODEL_DIR: the model after SFT; unset = scripts/run_train_generative.sh makes one, from the same variables. ALGORITHM: grpo
# (or ppo). PROMPT: history or chat; QUESTION, of chats. Without MODEL_DIR the settings are those of the demo's tiny model,
# else the command's own. NUM_GPUS, DEEPSPEED_CONFIG, LEARNING_RATE, MAX_STEPS and so on as there; RL_OUTPUT_DIR and
# RL_LOGGING_DIR get it all. Further flags are those of scripts/train_grpo.py.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/settings.sh"
ALGORITHM=${ALGORITHM:-grpo}
case $ALGORITHM in grpo | ppo) ;; *) refuse "ALGORITHM must be grpo or ppo, got '$ALGORITHM'." ;; esac
together MODEL_DIR SEMANTIC_IDS "an SFT of this script's own"
source "$here/prepare_python.sh"
source "$here/launcher.sh"
source "$here/pipeline.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_$ALGORITHM.py" --help; fi
RL_LOGGING_DIR=${RL_LOGGING_DIR:-logs/rl}
if wants_background; then
    export BACKGROUND=0 FOREGROUND=1
    LOGGING_DIR=$RL_LOGGING_DIR in_background exec bash "$0" "$@"
    echo "tail -f ${RL_LOGGING_DIR}_launch.log"
    exit 0
fi
of_rl="LEARNING_RATE MAX_STEPS EVAL_STEPS NUM_TRAIN_EPOCHS PER_DEVICE_TRAIN_BATCH_SIZE GRADIENT_ACCUMULATION_STEPS WARMUP_RATIO
    MAX_GRAD_NORM BF16 SEED SPLIT_DATA QUESTION TEXT_DATA TEXT_KEYS VALID_USERS"
demo='' sft=
if [ -z "${INTERACTION_DATA:-}" ]; then demo=1; fi

if [ -z "${MODEL_DIR:-}" ]; then
    sft=${OUTPUT_DIR:-results/${demo:+demo_}generative}
    if [ ! -e "$sft/table.json" ]; then
        echo "== SFT: semantic ids, and a language model that says the next"
        names=()
        for name in LEARNING_RATE MAX_STEPS EVAL_STEPS NUM_TRAIN_EPOCHS EPOCHS PER_DEVICE_TRAIN_BATCH_SIZE BATCH_SIZE QUESTION; do
            names+=(-u "$name")
        done
        step env "${names[@]}" bash "$here/run_train_generative.sh"
    fi
    MODEL_DIR=$sft/stage2/best_model/llm SEMANTIC_IDS=$sft/stage2/best_model/semantic_ids.json
    HISTORY=${HISTORY:-$((${MAX_SEQ_LENGTH:-11} - 1))} # as it was trained
    LEARNING_RATE=${LEARNING_RATE:-3e-5} MAX_STEPS=${MAX_STEPS:-400} EVAL_STEPS=${EVAL_STEPS:-100}
    PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-32} NUM_BEAMS=${NUM_BEAMS:-20}
    if [ "$ALGORITHM" = grpo ]; then SCALE_REWARDS=${SCALE_REWARDS:-False}; fi
    if [ -n "$demo" ]; then INTERACTION_DATA=dataset/demo.csv; fi
fi
if [ -z "${QUESTION:-}" ]; then unset TEXT_DATA TEXT_KEYS; fi # prompts of ids read none
look_around
home=${RL_OUTPUT_DIR:-results/${demo:+demo_}rl}
echo "== $ALGORITHM behind SFT"
flags=(--interaction_data "$INTERACTION_DATA" --model_dir "$MODEL_DIR" --semantic_ids "$SEMANTIC_IDS"
    --output_dir "$home/$ALGORITHM" --logging_dir "${RL_LOGGING_DIR}_$ALGORITHM")
# shellcheck disable=SC2086 # a list of words
add_flags PROMPT HISTORY NUM_BEAMS SCALE_REWARDS $of_rl
launcher_for "$NUM_GPUS" "$gpus"
show_log "${RL_LOGGING_DIR}_$ALGORITHM"
step "${launcher[@]}" "$scripts/train_$ALGORITHM.py" "${flags[@]}" ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"} \
    --overwrite "$@"
cp "$home/$ALGORITHM/table.json" "$home/$ALGORITHM/table.md" "$home/"
echo
cat "$home/table.md"
