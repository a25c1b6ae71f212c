#!/usr/bin/env bash
# OpenOneRec's supervised fine-tuning on chats, with add_think_pattern in the dataset JSON.
#
#   bash scripts/openonerec/posttrain_sft.sh                                   a demo: goes on from that of stage 2
#   MODEL_DIR=…/stg2/step5000/global_step5000/converted DATASET_CONFIG=sft.json OUTPUT_DIR=results/sft bash …
#
# As pretrain_stg1.sh, without its --freeze_llm.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_qwen3.py" --help; fi

if [ -z "${MODEL_DIR:-}" ]; then
    demo_model_of stg2 pretrain_stg2.sh
    DATASET_CONFIG=${DATASET_CONFIG:-$demo_home/data/sft/dataset.json} OUTPUT_DIR=${OUTPUT_DIR:-$demo_home/sft}
    demo_settings 2e-3 3 396 sft_valid
fi
OUTPUT_DIR=${OUTPUT_DIR:-results/sft}
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
train_stage "SFT" --monitor_datasource_loss --monitor_datasource_cnt --enable_gradient_checkpointing "$@"
