"""Ranking metrics from one number per user: the place of the target in the user's list.

With one target per user recall@k equals hit@k. All figures are fractions, not percent.
"""

import numpy as np

RESAMPLES = 1000


def target_places(recommended, target):
    """Place of each user's target in their list, 0 = first; k where it is absent.

    Args:
        recommended: [E, k] item numbers, best first, -1 where a list ran out.
        target: [E] item numbers; -1 where it is not known, and so in no list.

    Raises:
        ValueError: a list names its target twice, so its place would be ambiguous.
    """
    target = np.asarray(target)[:, None]
    found = (recommended == target) & (target >= 0)
    if (found.sum(1) > 1).any():
        raise ValueError("a list names its target twice")
    return np.where(found.any(1), found.argmax(1), recommended.shape[1])


def gains(topk):
    """{metric: [k_max + 1] what a target at place 0, 1, …, k_max (absent) adds}; its mean over users counts.

    recall@k = 1 when the place is among the first k; ndcg@k = 1 / log2(place + 2) there, as the ideal
    list has the target first; mrr@k = 1 / (place + 1) there.
    """
    places = np.arange(max(topk) + 1)
    table = {}
    for k in sorted(topk):
        within = places < k
        table[f"recall@{k}"] = within * 1.0
        table[f"ndcg@{k}"] = within / np.log2(places + 2)
        table[f"mrr@{k}"] = within / (places + 1)
    return table


def figures(places, topk):
    """[E] places -> {"recall@5": …, "ndcg@5": …, "mrr@5": …, …}; zeros when there is no user."""
    return of_counts(np.bincount(places, minlength=max(topk) + 1)[: max(topk) + 1], len(places), topk)


def of_counts(counts, users, topk):
    """figures, where counts[p] of so many users have place p."""
    return {name: float(counts @ gain / max(users, 1)) for name, gain in gains(topk).items()}


def intervals(places, topk, seed=0):
    """{"recall@5_ci95": [low, high], …}: percentile bootstrap over users, 1,000 resamples.

    Resampling users is drawing how many have each place, so it costs the same for any number of users.
    """
    if not len(places):
        return {f"{name}_ci95": [0.0, 0.0] for name in gains(topk)}
    counts = np.bincount(places, minlength=max(topk) + 1)[: max(topk) + 1]
    drawn = np.random.default_rng(seed).multinomial(len(places), counts / len(places), size=RESAMPLES)
    return {
        f"{name}_ci95": [float(x) for x in np.percentile(drawn @ gain / len(places), (2.5, 97.5))]
        for name, gain in gains(topk).items()
    }


def paired_p(ours, theirs, topk, seed=0):
    """{metric: p} that two models judged on the same users differ by chance: paired bootstrap over users.

    Two-sided, 10,000 resamples of the users' differences; the least it can say is 0.0002.

    Args:
        ours, theirs: [E] places of the same users' targets.
    """
    p = {}
    for name, sums in paired_sums(ours, theirs, topk, seed):
        least = min((sums <= 0).mean(), (sums >= 0).mean())
        p[name] = float(min(1, 2 * max(least, 1 / len(sums))))
    return p


def paired_intervals(ours, theirs, topk, seed=0):
    """{metric: [low, high]} of what ours is better by, 95 %: percentiles of the resamples of paired_p."""
    return {
        name: [float(x) for x in np.percentile(sums / len(ours), (2.5, 97.5))]
        for name, sums in paired_sums(ours, theirs, topk, seed)
    }


def paired_sums(ours, theirs, topk, seed):
    """Yields (metric, [10,000] sums of the users' differences in a resample)."""
    rng = np.random.default_rng(seed)
    ours, theirs = np.minimum(ours, max(topk)), np.minimum(theirs, max(topk))
    for name, gain in gains(topk).items():
        differences, counts = np.unique(gain[ours] - gain[theirs], return_counts=True)
        # Resampling users is drawing how many have each difference.
        yield name, rng.multinomial(len(ours), counts / len(ours), size=10 * RESAMPLES) @ differences


def table_row(places, is_cold, topk):
    """Figures with intervals over all users and, prefixed "cold_", over those whose target is a cold item."""
    row = {"users": len(places), "cold_users": int(is_cold.sum())}
    for prefix, subset in (("", places), ("cold_", places[is_cold])):
        values = figures(subset, topk) | intervals(subset, topk)
        row |= {prefix + name: value for name, value in values.items()}
    return row


def slices(places, target_count, history_length, topk):
    """Figures by how often the target occurs in training and by how much the user took before.

    Returns:
        {"target_count 0": {"users": …, "recall@5": …}, …, "history 1-4": {…}, …}
    """
    result = {}
    for name, values, edges in (
        ("target_count", target_count, (0, 1, 5, 20, None)),
        ("history", history_length, (1, 5, 10, 20, None)),
    ):
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = (values >= low) & (values < high if high is not None else True)
            label = f"{low}+" if high is None else f"{low}" if high == low + 1 else f"{low}-{high - 1}"
            result[f"{name} {label}"] = {"users": int(inside.sum())} | figures(places[inside], topk)
    return result


def groups(values, parts):
    """Users in groups of about equally many by a number of each; equals stay together, and 0 alone.

    Args:
        values: [E] whole numbers, none negative.
        parts: groups of those above 0, at most.

    Returns:
        [(low, high, [E] bool)]: least and largest number of a group, and who is in it; low first.
    """
    above = np.sort(values[values > 0])
    places = np.arange(parts) * len(above) // parts
    edges = np.unique([*([0] if (values == 0).any() else []), *(above[places] if len(above) else [])])
    number = np.searchsorted(edges, values, side="right")
    found = [number == n + 1 for n in range(len(edges))]
    return [(int(values[inside].min()), int(values[inside].max()), inside) for inside in found]
