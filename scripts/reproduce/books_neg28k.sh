#!/usr/bin/env bash
# HLLM-1B on Amazon Books: 694,898 users, 686,624 items, 10,053,086 interactions. Batch 512, pool 28,672.
# Trains on each user's newest 56 items, evaluates with 50 items of history. HLLM-7B: two Baichuan2-7B instead.
#
# Expected test figures, percent (arXiv:2409.12740, table 7):
#   1B: recall@10 9.28 ± 0.10, recall@50 17.34 ± 0.15, recall@200 27.22 ± 0.20
#       ndcg@10 5.65 ± 0.07, ndcg@50 7.41 ± 0.07, ndcg@200 8.89 ± 0.10
#   7B: recall@10 9.39, ndcg@10 5.69; 1B from scratch: 6.85 and 4.02
# Hardware: 128 A100 80 GB, about half a day; 7B two days (the original's own notes).
set -euo pipefail
NAME=amazon_books
GPUS=${GPUS:-128}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-4}
TEXT_KEYS=${TEXT_KEYS:-title,description}
SEEDS=${SEEDS:-42}
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" --max_seq_length 56 --eval_seq_length 51 --one_window_per_user --warmup_ratio 0.15 --deepspeed configs/ds_config_zero3.json "$@"
