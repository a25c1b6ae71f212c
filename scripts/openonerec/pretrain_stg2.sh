#!/usr/bin/env bash
# OpenOneRec's second stage: everything learns, from recommendation data and general text together.
#
#   bash scripts/openonerec/pretrain_stg2.sh                                   a demo: goes on from that of stage 1
#   MODEL_DIR=…/stg1/step2000/global_step2000/converted DATASET_CONFIG=pretrain.json OUTPUT_DIR=results/stg2 bash …
#
# As pretrain_stg1.sh, without its --freeze_llm.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_qwen3.py" --help; fi

if [ -z "${MODEL_DIR:-}" ]; then
    demo_model_of stg1 pretrain_stg1.sh
    DATASET_CONFIG=${DATASET_CONFIG:-$demo_home/data/stg2/dataset.json} OUTPUT_DIR=${OUTPUT_DIR:-$demo_home/stg2}
    demo_settings 3e-3 4 268 valid
fi
OUTPUT_DIR=${OUTPUT_DIR:-results/stg2}
LEARNING_RATE=${LEARNING_RATE:-2e-4}
MIN_LR=${MIN_LR:-1e-4}
LR_SCHEDULER_TYPE=${LR_SCHEDULER_TYPE:-cosine}
NUM_WARMUP_STEPS=${NUM_WARMUP_STEPS:-500}
NUM_TRAINING_STEPS=${NUM_TRAINING_STEPS:-5000}
MAX_LENGTH=${MAX_LENGTH:-32768}
MINIBATCH_SIZE=${MINIBATCH_SIZE:-16384}
SAVE_CHECKPOINT_PER_STEP=${SAVE_CHECKPOINT_PER_STEP:-50}
LOGGING_PER_STEP=${LOGGING_PER_STEP:-5}
WEIGHT_DECAY=${WEIGHT_DECAY:-0.1}
SEED=${SEED:-19260817}
train_stage "stage 2" --monitor_datasource_loss --monitor_datasource_cnt --enable_gradient_checkpointing "$@"
