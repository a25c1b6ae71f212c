#!/usr/bin/env bash
# HLLM-1B on Pixel1M: 1,001,822 users, 100,541 items, 19,886,579 interactions. Batch 512, pool 5,632.
#
# Expected test figures, percent (arXiv:2409.12740, table 11, 10 items of history):
#   recall@10 7.56 ± 0.15, ndcg@10 4.30 ± 0.10
#   with --item_id_embedding (table 12): 7.50 and 4.26; ids alone (--id_only): 6.08 and 3.41
# Hardware: the paper's Pixel runs used 32 A100 80 GB; by interactions this one is 1/8 of Pixel8M's 4.1 days.
set -euo pipefail
NAME=Pixel1M
GPUS=${GPUS:-32}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-16}
TEXT_KEYS=${TEXT_KEYS:-title,tag,description}
SEEDS=${SEEDS:-2020}
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" --max_seq_length 11 "$@"
