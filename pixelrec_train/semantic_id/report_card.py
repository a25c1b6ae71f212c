"""The report card of semantic ids: how well they tell items apart, and how evenly they use their codes."""

import numpy as np

from pixelrec_train.semantic_id.codes import ABSENT


def report_card(ids, interactions=None, errors=None):
    """What to know about ids before a model is trained on them.

    Args:
        ids: SemanticIds.
        interactions: [N] how often each item occurs in training, or None.
        errors: [L] share of the vectors' variance that is left after each level, or None.

    Returns:
        A dict JSON can hold:
        collision_rate: 1 - distinct ids / items.
        items_involved: share of items that share their id with another one.
        interactions_involved: share of interactions whose item does (None without interactions). Popular
            near-duplicates collide more often than others, so it can be far above items_involved.
        worst_group: items of the id that most share.
        per level, coarse to fine: usage (codes in use), perplexity (exp of their entropy over items; equal
            to usage when all are used alike), largest_prefix (items behind the most common id so far).
        reconstruction_error: errors.
    """
    codes = ids.codes
    group, size = groups(codes)
    shared = size[group] > 1  # [N]
    levels = [level_card(codes, level, ids.codebook_sizes[level]) for level in range(ids.levels)]
    involved = None
    if interactions is not None and interactions.sum():
        involved = float(interactions[shared].sum() / interactions.sum())
    return {
        "items": len(codes),
        "distinct_ids": len(size),
        "collision_rate": 1 - len(size) / max(len(codes), 1),
        "items_involved": float(shared.mean()) if len(codes) else 0.0,
        "interactions_involved": involved,
        "worst_group": int(size.max(initial=0)),
        "levels": levels,
        "reconstruction_error": None if errors is None else [float(e) for e in errors],
    }


def groups(codes):
    """[N, L] -> ([N] number of each row's group of equal rows, [G] rows in each group)."""
    _, group, size = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return group.reshape(-1), size


def level_card(codes, level, codebook_size):
    used = codes[codes[:, level] != ABSENT, level]
    share = np.bincount(used, minlength=1) / max(len(used), 1)
    share = share[share > 0]
    _, load = groups(codes[:, : level + 1])
    return {
        "codebook_size": int(codebook_size),
        "usage": len(share),
        "perplexity": float(np.exp(-(share * np.log(share)).sum())),
        "largest_prefix": int(load.max(initial=0)),
    }


def card_text(card):
    """The card as a person reads it."""
    lines = [
        f"{card['items']:,} items, {card['distinct_ids']:,} ids: "
        f"collision rate {card['collision_rate']:.3%}, {card['items_involved']:.3%} of items "
        f"involved, worst group {card['worst_group']:,}"
    ]
    if card["interactions_involved"] is not None:
        lines.append(
            f"{card['interactions_involved']:.3%} of interactions are with an item that shares its id"
        )
    lines.append("| level | codes used | perplexity | largest prefix | error left |")
    lines.append("|---|---:|---:|---:|---:|")
    errors = card["reconstruction_error"] or []
    for number, level in enumerate(card["levels"]):
        error = f"{errors[number]:.4f}" if number < len(errors) else ""
        lines.append(
            f"| {number + 1} | {level['usage']:,} / {level['codebook_size']:,} | {level['perplexity']:.1f} | "
            f"{level['largest_prefix']:,} | {error} |"
        )
    return "\n".join(lines)
