#!/usr/bin/env bash
# HLLM-1B on Pixel8M: 8,886,078 users, 407,082 items, 158,488,652 interactions. Batch 512, pool 5,632.
#
# Expected test figures, percent (arXiv:2409.12740, table 7):
#   recall@10 6.13 ± 0.05, recall@50 12.48 ± 0.10, recall@200 21.18 ± 0.15
#   ndcg@10 3.54 ± 0.05, ndcg@50 4.92 ± 0.05, ndcg@200 6.22 ± 0.05
# Hardware: 32 A100 80 GB, about 4.1 days (the original's own note).
set -euo pipefail
NAME=Pixel8M
GPUS=${GPUS:-32}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-16}
TEXT_KEYS=${TEXT_KEYS:-title,tag,description}
SEEDS=${SEEDS:-2020}
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" --max_seq_length 11 "$@"
