"""Groups of semantic ids that a policy answers prompts with, all of the catalogue."""

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.config.rollouts import BEAM, DISTINCT_IDS, SAMPLE
from pixelrec_train.errors import InputError
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.reading import side_by_side
from pixelrec_train.model.sampling import Noise, sample, sample_distinct
from pixelrec_train.rl.rewards import Groups


class Policy:
    """policy(prompts, keys) -> [B, G] leaves of the trie, on the CPU: of each prompt its group, the likeliest
    first, by a TokenModel as its weights stand."""

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
                return beam_search(*asked).leaves.cpu()
            draw = sample_distinct if how.rollout == DISTINCT_IDS else sample
            drawn = draw(*asked, temperature=how.temperature, noise=Noise(self.seed, keys, device))
        order = drawn.log_probabilities.sum(-1).argsort(dim=1, descending=True, stable=True)
        return drawn.leaves.gather(1, order).cpu()


class ItemAnswers:
    """What rl.source asks: answers drawn, worth something, as tokens. An answer is a leaf of the trie."""

    def __init__(self, policy, rewards, add_gt):
        """
        Args:
            policy: Policy.
            rewards: rewards.Rewards.
            add_gt: whether a group without the target gets it.
        """
        self.policy, self.rewards, self.add_gt = policy, rewards, add_gt
        self.leaf_tokens = np.asarray(policy.model.vocabulary.token_ids(policy.trie.ids()))

    def draw(self, prompts):
        """[b, G] leaves for b Prompts. All ranks call it, also those without one."""
        token_ids = [prompt.token_ids for prompt in prompts] or [torch.zeros(1, dtype=torch.long)]
        leaves = self.policy(token_ids, [prompt.key for prompt in prompts] or [0])
        leaves = leaves.numpy()[: len(prompts)]
        return with_targets(leaves, self.policy.trie.leaf_of[targets(prompts)]) if self.add_gt else leaves

    def tokens(self, leaves):
        """[b, G, L] token ids, negative at the end of shorter ids."""
        return self.leaf_tokens[leaves]

    def judge(self, prompts, leaves):
        """([b, G] rewards, {name: [b, G] of each}, {figure: (sum, count)})"""
        groups = Groups([prompt.history for prompt in prompts], targets(prompts), leaves, self.policy.trie)
        nothing = np.zeros(leaves.shape, np.float32)
        total, parts = (
            self.rewards(groups) if prompts else (nothing, dict.fromkeys(self.rewards.parts, nothing))
        )
        hits = float(groups.right.any(1).sum()) if prompts else 0.0
        figures = {
            "hits": (hits, float(len(prompts))),
            "distinct": (1000.0 * len(np.unique(leaves)), float(leaves.size)),
        }
        return total, parts, figures


def targets(prompts):
    return np.array([prompt.target for prompt in prompts], np.int64)


def with_targets(leaves, wanted):
    """[B, G] leaves, in which groups without the one wanted [B] have it in the place of their last."""
    leaves = leaves.copy()
    missing = ~(leaves == wanted[:, None]).any(1)
    leaves[missing, -1] = wanted[missing]
    return leaves
