"""What an answer is worth. A reward looks at whole groups: histories, targets, and the answers to each.

Shapes: B prompts, G answers of each, N items.
"""

from typing import NamedTuple

import numpy as np

from pixelrec_train.config.rollouts import COLLABORATIVE, NDCG, POPULARITY, RANKING, RULE, SEMANTIC


class Groups(NamedTuple):
    histories: list[np.ndarray]  # B of item numbers, oldest first
    target: np.ndarray  # [B] item numbers
    leaves: np.ndarray  # [B, G] of the trie, the policy's likeliest first
    trie: object  # semantic_id.trie.Trie

    @property
    def right(self):
        """[B, G] bool: whether it is the target's id."""
        return self.leaves == self.trie.leaf_of[self.target][:, None]

    @property
    def items(self):
        """[B, G] item numbers: of the items of an id, the one that was taken most often."""
        return self.trie.leaf_items[self.trie.leaf_ptr[self.leaves]]


def rule(groups):
    """1 for the target's id, else 0."""
    return groups.right.astype(np.float32)


def ndcg(groups):
    """Where a group has the target: 0 for it, and for each other less than 0, the more the further in front.

    At place r it is -1 / log2(r + 2), divided by the sum of these over the group. 0 in groups without a hit.

    Source: MiniOneRec (arXiv:2510.24431), minionerec_trainer.py, ndcg_rule_reward.
    """
    right = groups.right
    gains = 1 / np.log2(np.arange(right.shape[1]) + 2)
    return np.where(right.any(1)[:, None] & ~right, -gains / gains.sum(), 0.0).astype(np.float32)


def ranking(groups):
    """rule + ndcg."""
    return rule(groups) + ndcg(groups)


class Semantic:
    """The cosine of an item's embedding with the target's."""

    def __init__(self, embeddings):
        """embeddings: [N, D], rows by item number."""
        length = np.linalg.norm(embeddings, axis=1, keepdims=True)
        self.embeddings = np.asarray(embeddings / np.maximum(length, 1e-12), np.float32)

    def __call__(self, groups):
        wanted = self.embeddings[groups.target]  # [B, D]
        return np.einsum("bgd,bd->bg", self.embeddings[groups.items], wanted)


class Collaborative:
    """What another recommender scores an item behind the history."""

    def __init__(self, score):
        """score: b histories -> [b, N] scores."""
        self.score = score

    def __call__(self, groups):
        scores = np.asarray(self.score(groups.histories), np.float32)
        return np.take_along_axis(scores, groups.items, axis=1)


class Unpopularity:
    """0 for an item that nobody took, -1 for the one taken most often, between them by the logarithm."""

    def __init__(self, counts):
        """counts: [N] how often each was taken in training."""
        logs = np.log1p(np.asarray(counts, np.float64))
        self.penalty = (-logs / max(logs.max(), 1e-12)).astype(np.float32)

    def __call__(self, groups):
        return self.penalty[groups.items]


class Rewards:
    """A weighted sum of rewards."""

    def __init__(self, weights, embeddings=None, score=None, counts=None):
        """
        Args:
            weights: {name of a reward: its weight}
            embeddings, score, counts: of Semantic, Collaborative, Unpopularity, where they are named.
        """
        makers = {
            RULE: lambda: rule,
            NDCG: lambda: ndcg,
            RANKING: lambda: ranking,
            SEMANTIC: lambda: Semantic(embeddings),
            COLLABORATIVE: lambda: Collaborative(score),
            POPULARITY: lambda: Unpopularity(counts),
        }
        self.weights, self.parts = weights, {name: makers[name]() for name in weights}

    def __call__(self, groups):
        """([B, G] fp32 sums, {name: [B, G] of each, before its weight})"""
        found = {name: part(groups) for name, part in self.parts.items()}
        total = sum(self.weights[name] * part for name, part in found.items())
        return np.asarray(total, np.float32), found
