"""Groups of semantic ids that a policy answers prompts with, all of the catalogue."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelrec_train import distributed
from pixelrec_train.config.rollouts import BEAM, DISTINCT_IDS, SAMPLE
from pixelrec_train.errors import InputError
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.reading import side_by_side
from pixelrec_train.model.sampling import Noise, sample, sample_distinct


class Answers(NamedTuple):
    """Of each prompt its group, the likeliest first."""

    leaves: Tensor  # [B, G] of the trie, on the CPU
    scores: Tensor  # [B, G] their log-probabilities in nats, by the policy as it is


class Policy:
    """policy(prompts, keys) -> Answers of a TokenModel as its weights stand."""

    def __init__(self, model, trie, how, normalised_over, seed):
        """
        Args:
            trie: semantic_id.trie.Trie of the catalogue.
            how: RolloutFlags.
            normalised_over: as of beam_search.
            seed: with a prompt's key it decides what is drawn for it.

        Raises:
            InputError: the catalogue has fewer ids than a group of different ones.
        """
        if how.rollout != SAMPLE and how.num_generations > trie.num_leaves:
            raise InputError(
                f"--num_generations {how.num_generations} different ids are asked for, but the catalogue has "
                f"{trie.num_leaves}. Lower it, or take --rollout sample."
            )
        device = distributed.device()
        self.model, self.how, self.normalised_over, self.seed = model, how, normalised_over, seed
        self.trie, self.rows = trie.to(device), model.vocabulary.level_rows(device)

    @torch.no_grad()
    def __call__(self, prompts, keys):
        how, device = self.how, distributed.device()
        token_ids, mask = side_by_side(prompts, device)
        with self.model.decoding() as decoder:
            asked = decoder, self.trie, self.rows, token_ids, mask, how.num_generations, self.normalised_over
            if how.rollout == BEAM:
                found = beam_search(*asked)
                leaves, scores = found.leaves, found.scores
            else:
                draw = sample_distinct if how.rollout == DISTINCT_IDS else sample
                drawn = draw(*asked, temperature=how.temperature, noise=Noise(self.seed, keys, device))
                scores, order = drawn.log_probabilities.sum(-1).sort(dim=1, descending=True, stable=True)
                leaves = drawn.leaves.gather(1, order)
        return Answers(leaves.cpu(), scores.cpu())


def with_targets(leaves, wanted):
    """[B, G] leaves, in which groups without the one wanted [B] have it in the place of their last."""
    leaves = leaves.copy()
    missing = ~(leaves == wanted[:, None]).any(1)
    leaves[missing, -1] = wanted[missing]
    return leaves


def leaf_tokens(trie, vocabulary):
    """[leaves, L] token ids of every leaf, negative at the end of shorter ids."""
    return np.asarray(vocabulary.token_ids(trie.ids()))
