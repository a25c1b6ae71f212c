"""Ranking by full rows of scores, for recommenders that are no index of vectors."""

import numpy as np

from pixelrec_train.evaluation.blocks import in_blocks

LEFT_OUT = np.iinfo(np.int64).max


def rank_by_scores(score, held_out, config):
    """Where every held-out user's target stands, by the rules of retrieval.rank_held_out.

    Args:
        score: b histories (arrays of item numbers, oldest first) -> [b, num_items] scores, higher is better.
        config: RankingFlags.

    Returns:
        [E] places for metrics.figures, the same on every rank; equal scores are ordered by item number.
    """

    def work(users):
        histories, target = [held_out.history(e) for e in users], held_out.target[users]
        return places_in(score(histories), target, [] if config.keep_seen else histories)

    places = np.concatenate(in_blocks(len(held_out), config.eval_batch_size, work))
    return np.minimum(places, max(config.topk))


def places_in(scores, target, seen):
    """[b, num_items] scores, [b] targets, b arrays of items to leave out -> [b] places, 0 = first.

    A target that is itself left out has the place LEFT_OUT. A score that is not a number helps nobody.
    """
    rows, numbers = np.arange(len(scores)), np.arange(scores.shape[1])
    scores = np.array(scores, np.float64)
    for row, items in enumerate(seen):
        scores[row, items] = -np.inf
    own = scores[rows, target][:, None]
    not_before = (scores < own) | ((scores == own) & (numbers >= target[:, None]))
    return np.where(np.isneginf(own[:, 0]), LEFT_OUT, (~not_before).sum(1))
