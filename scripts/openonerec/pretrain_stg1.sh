#!/usr/bin/env bash
# OpenOneRec's first stage: the rows of the itemic tokens learn, everything else stands still.
#
#   bash scripts/openonerec/pretrain_stg1.sh                                         a demo: everything is made
#   MODEL_DIR=Qwen3-1.7B_itemic DATASET_CONFIG=pretrain.json OUTPUT_DIR=results/stg1 bash scripts/openonerec/pretrain_stg1.sh
#
# The variables below, and those that all stages share (published_settings in recipe.sh), are OpenOneRec's settings; what is
# set in the environment wins. LAUNCHER is deepspeed, torchrun, mpirun or srun (launchers.sh beside this);
# NUM_GPUS ranks, or those of HOSTFILE. Further flags go behind the command (python scripts/train_qwen3.py --help lists
# them). BACKGROUND=1 detaches it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_qwen3.py" --help; fi

if [ -z "${MODEL_DIR:-}" ]; then
    make_demo
    MODEL_DIR=$demo_home/data/llm DATASET_CONFIG=${DATASET_CONFIG:-$demo_home/data/stg1/dataset.json}
    OUTPUT_DIR=${OUTPUT_DIR:-$demo_home/stg1}
    demo_settings 5e-3 2 40 valid
fi
OUTPUT_DIR=${OUTPUT_DIR:-results/stg1}
NUM_WARMUP_STEPS=${NUM_WARMUP_STEPS:-200}
NUM_TRAINING_STEPS=${NUM_TRAINING_STEPS:-2000} # until the rate is at MIN_LR; training goes on to the end of the data
# START_OPTIMIZE_EMBEDDING_INDEX: the first itemic token, 151669 for Qwen3; unset = as itemic_meta.json says

train_stage "stage 1" --freeze_llm \
    ${START_OPTIMIZE_EMBEDDING_INDEX:+--start_optimize_embedding_index "$START_OPTIMIZE_EMBEDDING_INDEX"} "$@"
