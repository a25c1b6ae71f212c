#!/usr/bin/env bash
# From two CSV files to a table with popularity, a two-tower HLLM and a generative model beside each other.
#
#   bash scripts/run_train_generative.sh                     a demo: synthetic data, tiny models, no GPU needed
#   INTERACTION_DATA=… TEXT_DATA=… LLM_DIR=… TWO_TOWER=…/best_model bash scripts/…      your data, your Qwen3
#
# Every step is a command of its own, printed before it runs. Without TWO_TOWER the two-tower model is trained first, by
# run_train_pixelrec.sh; its item LLM gives the embeddings that become semantic ids. Further flags go behind the command,
# to the last stage of training.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/prepare_python.sh
source scripts/launcher.sh
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" scripts/train_generative.py --help ;; esac

# --- data and models: unset = the demo of run_train_pixelrec.sh, and a tiny Qwen3 with random weights
INTERACTION_DATA=${INTERACTION_DATA:-}
TEXT_DATA=${TEXT_DATA:-}
TWO_TOWER=${TWO_TOWER:-}
LLM_DIR=${LLM_DIR:-}
if [ -z "$INTERACTION_DATA$TEXT_DATA" ]; then demo=1; else demo=; fi

# --- semantic ids, vocabulary
LEVELS=${LEVELS:-3}
CODEBOOK_SIZE=${CODEBOOK_SIZE:-${demo:+32}}
CODEBOOK_SIZE=${CODEBOOK_SIZE:-256}
QUANTISER=${QUANTISER:-rq_kmeans}

# --- training: stage 1 trains the new rows alone, stage 2 everything
TEXT_KEYS=${TEXT_KEYS:-${demo:+title,tag,description}}
TEXT_KEYS=${TEXT_KEYS:-title,description}
STAGE1_EPOCHS=${STAGE1_EPOCHS:-1}
STAGE2_EPOCHS=${STAGE2_EPOCHS:-5}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-16}
LEARNING_RATE_STAGE1=${LEARNING_RATE_STAGE1:-${demo:+5e-3}}
LEARNING_RATE_STAGE1=${LEARNING_RATE_STAGE1:-1e-3}
LEARNING_RATE=${LEARNING_RATE:-${demo:+2e-3}}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
SEED=${SEED:-42}
DEEPSPEED_CONFIG=${DEEPSPEED_CONFIG:-configs/ds_config_zero2.json}
OUTPUT_DIR=${OUTPUT_DIR:-${demo:+results/demo_generative}}
OUTPUT_DIR=${OUTPUT_DIR:-results/generative}
LOGGING_DIR=${LOGGING_DIR:-logs/generative}

gpus=$(count_gpus)
cores=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
if [ "$gpus" -gt 0 ]; then NUM_GPUS=${NUM_GPUS:-$gpus}; else NUM_GPUS=${NUM_GPUS:-2}; fi
if [ "$gpus" -gt 0 ]; then BF16=${BF16:-True}; else BF16=${BF16:-False}; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / NUM_GPUS > 1 ? cores / NUM_GPUS : 1))}
if [ "$gpus" -eq 0 ]; then export DS_ACCELERATOR=cpu; fi
