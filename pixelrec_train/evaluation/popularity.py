"""The baseline everything must beat: recommend what most people took."""

import numpy as np

from pixelrec_train.evaluation.index import drop_seen
from pixelrec_train.evaluation.metrics import target_ranks


def popularity_ranks(held_out, train_counts, config):
    """Places of the targets when items are ranked by their count in training (ties by item number)."""
    order = np.argsort(-train_counts, kind="stable")
    k, places = max(config.topk), np.empty(len(held_out), np.int64)
    for users in np.array_split(np.arange(len(held_out)), -(-len(held_out) // config.eval_batch_size)):
        seen = [np.unique(held_out.history(e))[: 0 if config.keep_seen else None] for e in users]
        longest = min(k + max(len(s) for s in seen), len(order))
        lists = drop_seen(np.tile(order[:longest], (len(users), 1)), seen, k, len(order))
        places[users] = target_ranks(lists, held_out.target[users])
    return places
