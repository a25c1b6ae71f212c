#!/usr/bin/env bash
# HLLM-1B on Pixel200K: 200,000 users, 96,282 items, 3,965,656 interactions. Batch 512, pool 5,632.
#
# Expected test figures, percent (arXiv:2409.12740, table 2, both towers pretrained):
#   recall@10 5.58 ± 0.15, ndcg@10 3.10 ± 0.10 (from scratch: 5.06 and 2.76)
# Hardware: the paper's Pixel runs used 32 A100 80 GB; by interactions this one is 1/40 of Pixel8M's 4.1 days.
set -euo pipefail
NAME=Pixel200K
GPUS=${GPUS:-32}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-16}
TEXT_KEYS=${TEXT_KEYS:-title,tag,description}
SEEDS=${SEEDS:-2020}
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" --max_seq_length 11 "$@"
