#!/usr/bin/env bash
# HLLM-1B on Amazon Books: 694,898 users, 686,624 items, 10,053,086 interactions. Batch 128, pool 512.
#
# Expected test figures, percent (arXiv:2409.12740, table 7):
#   recall@10 6.97 ± 0.10, recall@50 14.61 ± 0.15, recall@200 24.78 ± 0.20
#   ndcg@10 3.98 ± 0.07, ndcg@50 5.64 ± 0.07, ndcg@200 7.16 ± 0.10
# Hardware: 16 H100 80 GB, about 2 days (the original's own note).
set -euo pipefail
NAME=amazon_books
GPUS=${GPUS:-16}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-8}
TEXT_KEYS=${TEXT_KEYS:-title,description}
SEEDS=${SEEDS:-2020}
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" --max_seq_length 51 --num_negatives 512 "$@"
