"""Ranking by full score rows: for baselines, whose scores are not inner products of an index."""

import numpy as np

from pixelrec_train import distributed


def rank_by_scores(score, held_out, config):
    """Where every held-out user's target stands, by the rules of retrieval.rank_held_out.

    Args:
        score: b histories (arrays of item numbers, oldest first) -> [b, num_items] scores, higher is better.
        config: RankingConfig; blocks of eval_batch_size users are dealt to the ranks in turn.

    Returns:
        [E] places for metrics.figures, the same on every rank; equal scores are ordered by item number.
    """
    blocks = np.array_split(np.arange(len(held_out)), -(-len(held_out) // config.eval_batch_size))
    mine = {}
    for number in range(distributed.rank(), len(blocks), distributed.world_size()):
        users = blocks[number]
        histories, target = [held_out.history(e) for e in users], held_out.target[users]
        places = places_in(score(histories), target, [] if config.keep_seen else histories)
        mine[number] = np.minimum(places, max(config.topk))
    done = {}
    for part in distributed.gather_objects(mine):
        done |= part
    return np.concatenate([done[number] for number in range(len(blocks))])


def places_in(scores, target, seen):
    """[b, num_items] scores, [b] targets, b arrays of items to leave out -> [b] places, 0 = first.

    A target that is left out itself comes last.
    """
    rows, numbers = np.arange(len(scores)), np.arange(scores.shape[1])
    scores = np.array(scores, np.float64)
    for row, items in enumerate(seen):
        scores[row, items] = -np.inf
    own = scores[rows, target][:, None]
    before = (scores > own) | ((scores == own) & (numbers < target[:, None]))
    return np.where(np.isneginf(own[:, 0]), scores.shape[1], before.sum(1))
