"""Ranked ids become ranked items by the stated rules: brute force says the same."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.config import RankingFlags
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.evaluation import generation
from pixelrec_train.evaluation.generation import (
    Generated,
    beams_needed,
    counted_otherwise,
    expand,
    expected_figures,
    other_counts,
    places_of,
)
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores
from pixelrec_train.semantic_id.trie import Trie


def held_out(histories, target):
    ends = np.cumsum([len(h) for h in histories])
    starts = np.concatenate([[0], ends[:-1]])
    return HeldOut(np.arange(len(ends)), starts, ends, np.asarray(target), np.concatenate(histories))


@st.composite
def rankings(draw):
    """A trie with shared ids and without some items, b lists of leaves, seen items, targets, k."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items = draw(st.integers(2, 30))
    codes = rng.integers(0, draw(st.sampled_from([1, 2, 4])), (items, 2))
    part = rng.choice(items, rng.integers(1, items + 1), replace=False) if draw(st.booleans()) else None
    trie = Trie.of(codes, rng.integers(0, 3, items), part)
    length = rng.integers(1, trie.num_leaves + 1)
    leaves = np.stack([rng.permutation(trie.num_leaves)[:length] for _ in range(5)])
    leaves[0, rng.integers(0, length) :] = -1  # this search found fewer, or nothing
    seen = [rng.permutation(items)[:n] for n in rng.integers(0, items + 1, 5)]
    return trie, leaves, seen, rng.integers(0, items, 5), draw(st.integers(1, 12))


@given(rankings())
@settings(max_examples=300, deadline=None)
def test_lists_and_places_are_those_of_brute_force(drawn):
    trie, leaves, seen, target, k = drawn
    lists = expand(trie, leaves, seen, k)
    places = places_of(trie, leaves, seen, target, k)
    for row in range(5):
        known = set(seen[row].tolist())
        ids = [  # the unseen items of each id that has one
            left
            for leaf in leaves[row][leaves[row] >= 0]
            if (left := [i for i in items_of(trie, leaf) if i not in known])
        ]
        everything = [i for left in ids for i in left]
        assert lists[row].tolist() == (everything[:k] + [-1] * k)[:k]
        t = int(target[row])
        place = everything.index(t) if t in everything else k
        assert places.item[row] == min(place, k)
        own = [n for n, left in enumerate(ids) if trie.leaf_of[left[0]] == trie.leaf_of[t]]
        assert places.sid[row] == min([*own, k])
        window = [everything.index(i) for i in ids[own[0]]] if own and t in everything else []
        topk = (k, 1) if k > 1 else (1,)
        shuffled = [figures(np.array([min(p, k)]), topk) for p in window] or [figures(np.array([k]), topk)]
        average = expected_figures(places.first[[row]], places.size[[row]], topk)
        for name, value in average.items():
            assert value == pytest.approx(np.mean([f[name] for f in shuffled]))


def items_of(trie, leaf):
    return trie.leaf_items[trie.leaf_ptr[leaf] : trie.leaf_ptr[leaf + 1]].tolist()


def test_the_three_ways_of_counting_on_an_example_by_hand():
    """Ids A = items 3, 0, 1 (by popularity), B = item 2, C = items 4, 5; the search ranks B, A, C."""
    codes = np.array([[0], [0], [1], [0], [2], [2]])
    trie = Trie.of(codes, popularity=[5, 5, 1, 9, 0, 0])
    leaves, nothing = np.array([[1, 0, 2]]), [np.array([], int)]
    assert expand(trie, leaves, nothing, 6).tolist() == [[2, 3, 0, 1, 4, 5]]
    assert expand(trie, leaves, [np.array([3, 2, 4])], 4).tolist() == [[0, 1, 5, -1]]

    places = places_of(trie, leaves, nothing, np.array([0]), 3)
    assert [int(p[0]) for p in places] == [2, 1, 1, 3]  # places 1, 2, 3 are as likely on average
    values = figures(places.item, (2, 3)) | other_counts(places, (2, 3))
    assert (values["recall@2"], values["recall@3"]) == (0, 1)
    assert (values["sid_recall@2"], values["sid_recall@3"]) == (1, 1)
    assert (values["average_recall@2"], values["average_recall@3"]) == pytest.approx((1 / 3, 2 / 3))
    assert "recall@2 100.00" in counted_otherwise(values, (2,))
    assert "items of an id: recall@2 33.33" in counted_otherwise(values, (2,))
    assert values["average_ndcg@3"] == pytest.approx((1 / np.log2(3) + 1 / 2) / 3)

    after = places_of(trie, leaves, [np.array([2, 3])], np.array([0]), 3)  # B is gone, A has two left
    assert [int(p[0]) for p in after] == [0, 0, 0, 2]
    itself = places_of(trie, leaves, [np.array([0])], np.array([0]), 3)  # seen: no item, but its id is there
    assert [int(p[0]) for p in itself] == [3, 1, 3, 2]


def scored_search(scores, trie):
    """A search that knows the score of every leaf for every newest item, and how wide it was asked to be."""
    widths = {}

    def search(histories, beams):
        rows = scores[[h[-1] for h in histories]]
        widths.update({h.tobytes(): beams for h in histories})
        leaves = np.argsort(-rows, axis=1, kind="stable")[:, :beams]
        return leaves, np.take_along_axis(rows, leaves, axis=1)

    return search, widths


def judge_closely(search, trie, users, config, beams):
    """Judged, and the Places it was made of, in the order of users."""
    recommender, found = Generated(search, trie, beams), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "other_counts", lambda places, topk: found.append(places) or {})
        judged = judge(recommender, users, config)
    return judged, found[0]


@pytest.mark.parametrize("keep_seen", [False, True])
def test_with_an_id_of_its_own_for_each_item_places_are_those_of_full_scores(keep_seen):
    rng = np.random.default_rng(0)
    items, config = 400, RankingFlags(topk=(5, 10), keep_seen=keep_seen, eval_batch_size=7)
    trie = Trie.of(rng.permutation(items)[:, None])
    scores = rng.normal(size=(items, items))  # of leaves
    histories = [rng.integers(0, items, n) for n in rng.integers(1, 90, 60)]
    users = held_out(histories, rng.integers(0, items, 60))
    search, widths = scored_search(scores, trie)
    judged, places = judge_closely(search, trie, users, config, beams=4)
    by_scores = ByScores(lambda hs: scores[[h[-1] for h in hs]][:, trie.leaf_of])
    expected = judge(by_scores, users, config).places
    assert np.array_equal(judged.places, expected) and np.array_equal(places.item, expected)
    assert np.array_equal(places.first, expected) and (places.size == 1).all()
    for history in histories:
        needed = 10 + (0 if keep_seen else len(set(history.tolist())))
        assert needed <= widths[history.tobytes()] < needed + 16

    for size in (1, 1000):
        _, again = judge_closely(search, trie, users, replace(config, eval_batch_size=size), beams=4)
        assert all(map(np.array_equal, places, again))
    left_out = [h[:0] if keep_seen else h for h in histories]
    lists = Generated(search, trie, 4).recommend(histories, left_out, 10)
    assert np.array_equal(lists, by_scores.recommend(histories, left_out, 10))


def test_a_search_is_as_wide_as_asked_and_no_wider_than_the_catalogue():
    histories = [np.arange(3), np.array([7, 7, 7]), np.arange(40)]
    assert beams_needed(histories, 10, 0, 10**6).tolist() == [16, 16, 64]
    assert beams_needed(histories, 10, 50, 10**6).tolist() == [64, 64, 64]
    assert beams_needed(histories, 10, 50, 30).tolist() == [30, 30, 30]
