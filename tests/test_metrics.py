"""Ranking metrics against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.evaluation import metrics


def slow_figures(lists, targets, topk):
    """From the definitions, one user and one cut-off at a time."""
    result = {}
    for k in topk:
        hits = [
            list(items[:k]).index(t) if t in items[:k] else None
            for items, t in zip(lists, targets, strict=True)
        ]
        n = len(targets)
        result[f"recall@{k}"] = sum(h is not None for h in hits) / n
        result[f"ndcg@{k}"] = sum(1 / math.log2(h + 2) for h in hits if h is not None) / n
        result[f"mrr@{k}"] = sum(1 / (h + 1) for h in hits if h is not None) / n
    return result


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_figures_are_those_of_the_definitions(data):
    users, k = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 12))
    lists = np.array([data.draw(st.permutations(range(15)))[:k] for _ in range(users)])
    targets = np.array(data.draw(st.lists(st.integers(0, 14), min_size=users, max_size=users)))
    topk = sorted({1, max(1, k // 2), k})
    ranks = metrics.target_places(lists, targets)
    figures = metrics.figures(ranks, topk)
    for name, value in slow_figures(lists, targets, topk).items():
        assert figures[name] == pytest.approx(value, abs=1e-12)


def test_an_absent_target_and_a_list_that_ran_out_count_as_a_miss():
    lists = np.array([[3, 1, -1], [2, -1, -1]])
    assert metrics.target_places(lists, np.array([1, 0])).tolist() == [1, 3]


def test_a_list_that_names_its_target_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        metrics.target_places(np.array([[1, 1]]), np.array([1]))


def test_the_interval_is_that_of_resampled_users():
    rng = np.random.default_rng(0)
    ranks = rng.choice([0, 3, 20, 50], size=400, p=[0.1, 0.2, 0.3, 0.4])
    low, high = metrics.intervals(ranks, (10,))["recall@10_ci95"]
    resampled = [metrics.figures(rng.choice(ranks, 400), (10,))["recall@10"] for _ in range(2000)]
    expected = np.percentile(resampled, (2.5, 97.5))
    assert (low, high) == pytest.approx(tuple(expected), abs=0.008)
    assert low < metrics.figures(ranks, (10,))["recall@10"] < high


def test_slices_cover_every_user_once_by_popularity_and_by_history():
    rng = np.random.default_rng(0)
    ranks, counts, history = rng.integers(0, 60, 300), rng.integers(0, 40, 300), rng.integers(1, 40, 300)
    parts = metrics.slices(ranks, counts, history, (10,))
    for kind in ("target_count", "history"):
        chosen = {name: part for name, part in parts.items() if name.startswith(kind)}
        assert sum(part["users"] for part in chosen.values()) == 300
        total = sum(part["users"] * part["recall@10"] for part in chosen.values()) / 300
        assert total == pytest.approx(metrics.figures(ranks, (10,))["recall@10"])
    assert parts["target_count 0"]["users"] == (counts == 0).sum()


def test_no_cold_user_gives_zeros_and_not_nan():
    row = metrics.table_row(np.array([0, 5]), np.array([False, False]), (5,))
    assert row["cold_users"] == 0 and row["cold_recall@5"] == 0 and row["cold_recall@5_ci95"] == [0, 0]
