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
NUM_WARMUP_STEPS=${NUM_WARMUP_STEPS:-500}
NUM_TRAINING_STEPS=${NUM_TRAINING_STEPS:-5000}
train_stage "SFT" "$@"
