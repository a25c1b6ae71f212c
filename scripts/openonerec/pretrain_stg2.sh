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
NUM_WARMUP_STEPS=${NUM_WARMUP_STEPS:-500}
NUM_TRAINING_STEPS=${NUM_TRAINING_STEPS:-5000}
train_stage "stage 2" "$@"
