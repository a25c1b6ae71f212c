"""Codes become ids: old items keep theirs, new ones get one by the rule for collisions."""

import numpy as np

from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id import dedup
from pixelrec_train.semantic_id.codes import SemanticIds


def give_ids(item_ids, interactions, quantiser, vectors, codes, policy, kept=None):
    """SemanticIds: those that are kept as they are, then the new items by the rule for collisions.

    Args:
        item_ids: of N items; those that `kept` has are passed over.
        interactions: [N] how often each was taken, or None: who comes first keeps the nearest codes.
        quantiser: Quantiser.
        vectors: [N, E] what its codebooks quantise.
        codes: [N, L] of the items.
        policy: "auto" or one of dedup.POLICIES; of ids that are kept, rule_of them.
        kept: SemanticIds of an earlier build.
    """
    known = set(kept.item_ids) if kept else set()
    new = np.array([row for row, item_id in enumerate(item_ids) if item_id not in known], np.int64)
    own, sizes, taken = codes[new], quantiser.codebook_sizes, kept.codes if kept else None
    if policy == "auto":
        policy = dedup.default_policy(len(codes), sizes)
    order = dedup.by_popularity(None if interactions is None else interactions[new], len(new))
    facts = {"dedup": policy, "collision_rate_before": 1 - len(np.unique(codes, axis=0)) / len(codes)}
    facts |= {"normalise": quantiser.preprocessing.kind}
    if policy == "suffix":
        own, size = dedup.add_suffix(own, order, taken, kept.codebook_sizes[-1] if kept else None)
        sizes += (size,)
    elif policy == "reassign":
        own, moved, fell_through = dedup.reassign(own, order, vectors[new], quantiser.codebooks, taken)
        facts |= {"moved": moved, "fell_through": fell_through}
    named = [item_ids[row] for row in new]
    if kept:
        named, own = kept.item_ids + named, np.concatenate([kept.codes, own])
    return SemanticIds(named, own.astype(np.int32), sizes, facts)


def rule_of(kept, quantiser, codebooks):
    """The rule by which the ids of an earlier build were told apart; new ones follow it.

    Raises:
        InputError: its ids and its codebooks do not belong together; codebooks: how it was named.
    """
    policy, sizes = kept.facts.get("dedup"), quantiser.codebook_sizes
    levels = sizes + kept.codebook_sizes[-1:] if policy == "suffix" else sizes
    if policy not in dedup.POLICIES or kept.codebook_sizes != levels or "quantiser" not in kept.facts:
        raise InputError(
            f"--codebooks {codebooks}: its semantic_ids.json and its codebooks do not belong together."
        )
    return policy
