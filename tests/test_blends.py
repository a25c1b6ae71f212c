"""Blends against their slow twins, their weights, blend.json, and a blend of vectors as one model."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import inputs_of

from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blend import Blend, Hybrid, end_to_end, standardised
from pixelrec_train.evaluation.blend_weights import Pool, chosen, fit
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.recommend.blend_file import BlendFile, blend_file, read_blend, write_blend
from pixelrec_train.recommend.parts import (
    COLD,
    UNTRAINED,
    Summed,
    checkpoints_of,
    is_blend,
    never_taken,
    vectors_of,
)
from pixelrec_train.untrained.history_sums import HistorySums
from pixelrec_train.untrained.item_knn import ItemKnn, item_knn


@pytest.fixture(scope="module")
def inputs(demo_config):
    return inputs_of(demo_config)


@pytest.fixture(scope="module")
def parts(inputs):
    """ItemKNN, and a two-tower model whose vectors are those of nobody."""
    rng, num_items = np.random.default_rng(0), inputs.interactions.num_items
    vectors = rng.normal(size=(num_items, 8)).astype(np.float32)

    def encode(histories, times=None):
        return torch.from_numpy(np.stack([vectors[h[-2:]].sum(0) for h in histories]))

    knn = item_knn(inputs.split.taken, inputs.interactions.num_items)
    return {"item_knn": ByScores(knn), "towers": TwoTower(encode, vectors, "exact")}


def slow_row(scores, left_out):
    """A row of `standardised`, an item at a time."""
    told = [score for score in scores if math.isfinite(score)]
    scores = [score if math.isfinite(score) else min(told, default=0) for score in scores]
    may = [score for item, score in enumerate(scores) if item not in left_out]
    mean = sum(may) / len(may)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in may) / len(may))
    return [(score - mean) / deviation if deviation > 1e-7 else 0 for score in scores]


def test_a_row_of_scores_has_mean_0_and_deviation_1_over_what_may_be_named():
    rng = np.random.default_rng(0)
    scores = rng.normal(3, 50, size=(4, 9))
    scores[1, [2, 5]] = -np.inf
    scores[2] = 7.3
    scores[3] = -np.inf
    left_out = [[1, 1, 4], [0], [8], []]
    slow = [slow_row(row, set(items)) for row, items in zip(scores.tolist(), left_out, strict=True)]
    assert np.allclose(standardised(scores, left_out), slow, atol=1e-5)


@pytest.mark.parametrize("keep_seen", [False, True])
def test_a_blends_places_are_those_of_loops(inputs, parts, demo_config, keep_seen):
    ranking, test, weights = replace(demo_config, keep_seen=keep_seen), inputs.split.test, [0.7, 0.2]
    fast = judge(Blend(parts, weights), test, ranking).places
    for e in range(0, len(test), 11):
        history, target = test.history(e), test.target[e]
        left_out = set() if keep_seen else set(history.tolist())
        rows = [slow_row(part.score([history])[0].tolist(), left_out) for part in parts.values()]
        total = [sum(w * x for w, x in zip(weights, xs, strict=True)) for xs in zip(*rows, strict=True)]
        better = [i for i in range(len(total)) if i not in left_out and total[i] > total[target]]
        place = 50 if target in left_out else min(len(better), 50)
        assert abs(fast[e] - place) <= 1  # neighbours may swap within fp32 rounding


def test_weights_are_the_best_of_the_grid_and_do_not_depend_on_the_number_of_candidates(
    inputs, parts, demo_config
):
    valid, every = inputs.split.valid, inputs.interactions.num_items
    whole, cut = (Pool.of(Blend(parts, [1, 1]), valid, demo_config, candidates=n) for n in (every, 100))
    users = np.arange(len(valid))
    weights = chosen(whole, users, [[1, 1]])
    assert weights == chosen(cut, users, [[1, 1]]) and max(weights) == 1
    ndcg = {}
    for share in (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1):
        for tried in ((share, 1), (1, share)):
            places = judge(Blend(parts, tried), valid, demo_config).places  # the whole catalogue, ranked
            ndcg[tried] = figures(places, (10,))["ndcg@10"]
    assert ndcg[tuple(weights)] == pytest.approx(max(ndcg.values()), abs=2e-3)


def test_a_planted_part_gets_all_the_weight(inputs, demo_config):
    valid = inputs.split.valid
    at = {tuple(valid.history(e)): valid.target[e] for e in range(len(valid))}

    def knows(histories):
        scores = np.zeros((len(histories), inputs.interactions.num_items))
        for row, history in enumerate(histories):
            scores[row, at[tuple(history)]] = 1
        return scores

    noise = np.random.default_rng(0).normal(size=inputs.interactions.num_items)
    parts = {"noise": ByScores(lambda h: np.tile(noise, (len(h), 1))), "knows": ByScores(knows)}
    found = fit(Blend(parts, [1, 1]), valid, demo_config, [[1, 1]])
    assert found.figures["ndcg@10"] == 1 and found.weights[1] == 1 and found.users == len(valid)


def test_a_half_of_the_validation_users_is_ranked_by_the_weights_of_the_other(inputs, parts, demo_config):
    valid = inputs.split.valid
    found = fit(Blend(parts, [1, 1]), valid, demo_config, [[1, 1]])
    halves = [[1.0, 0.0], [0.0, 1.0]]  # so different that the wrong ones would show
    both = judge(Blend(parts, [1, 1], halves), valid, demo_config).places
    alone = [judge(Blend(parts, weights), valid, demo_config).places for weights in halves]
    odd = valid.users % 2 == 1
    assert np.array_equal(both, np.where(odd, *alone)) and not np.array_equal(*alone)
    places = judge(Blend(parts, found.weights, found.halves), valid, demo_config).places
    assert figures(places, (10,))["ndcg@10"] == pytest.approx(found.figures["ndcg@10"], abs=2e-3)


def test_a_blend_of_vectors_is_one_vector_model(inputs, parts, demo_config):
    left, right = np.random.default_rng(1).normal(size=(2, inputs.interactions.num_items, 6))
    sums = HistorySums(left, right, recent=3, decay=0.5)  # of 6 columns: exact
    parts = parts | {"item_knn": Summed(sums)}
    vectors = [vectors_of(part, "faiss", False, width=6) for part in parts.values()]
    weights, test = [0.4, 1.0], inputs.split.test
    for keep_seen in (False, True):
        ranking = replace(demo_config, keep_seen=keep_seen)
        one = end_to_end(vectors, weights, keep_seen, "faiss")
        fast, slow = (judge(model, test, ranking).places for model in (one, Blend(parts, weights)))
        assert (np.abs(fast - slow) <= 1).all() and (fast == slow).mean() > 0.95  # neighbours may swap
    assert vectors_of(ByScores(lambda histories: None), "exact", False) is None
    taken, num_items = inputs.split.taken, inputs.interactions.num_items
    known = ItemKnn(taken, num_items)
    knn = Summed(known.sums(), known.of_its_own)
    one = vectors_of(knn, "exact", False, num_items)
    fast, slow = (judge(model, test, demo_config).places for model in (one, knn))
    assert (np.abs(fast - slow) <= 1).mean() > 0.97  # rounding orders those that share no taker anew


def test_cold_items_are_a_part_of_their_own(inputs, parts, demo_config):
    """With its weight an item that nobody took rises over those that ItemKNN knows."""
    cold = never_taken(inputs.split.popularity)
    is_cold, test = inputs.split.popularity == 0, inputs.split.test
    assert is_cold.any() and (cold.score([[0], [1]]) == is_cold).all()
    for weight, share in ((0, 0), (100, 1)):
        blend = Blend({"item_knn": parts["item_knn"], COLD: cold}, [1, weight])
        lists = judge(blend, test, demo_config, keep_lists=True).lists.items[:, :5]
        assert is_cold[lists].mean() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("weights", [[0.3, 1.0], [0.0, 1.0]])
def test_a_hybrid_ranks_what_its_first_part_names_and_what_nobody_took(inputs, parts, demo_config, weights):
    """The slow way: the blend's list, without what neither is."""
    always = inputs.split.popularity == 0
    named = np.random.default_rng(3).random(len(always)) < 0.1
    beams = ByScores(lambda histories: np.tile(np.where(named, 1.0, -np.inf), (len(histories), 1)))
    two, test = {"beams": beams, "towers": parts["towers"]}, inputs.split.test
    hybrid = judge(Hybrid(two, weights, always=always), test, demo_config, keep_lists=True).lists.items
    every = replace(demo_config, topk=(10, inputs.interactions.num_items))
    blend = judge(Blend(two, weights), test, every, keep_lists=True).lists.items
    for row, whole in zip(hybrid, blend, strict=True):
        assert row.tolist() == [i for i in whole if i >= 0 and (named[i] or always[i])][:50]
    pool = Pool.of(Hybrid(two, weights, always=always), inputs.split.valid, demo_config)
    candidates = pool.items[pool.values[:, :, 0] > -1e8]
    assert (named | always)[candidates].all()


def test_blend_json_is_read_as_it_was_written_and_may_be_moved(tmp_path, monkeypatch):
    (tmp_path / "runs/a/best_model").mkdir(parents=True)
    (tmp_path / "table.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    told = {"interaction_data": "table.csv", "text_keys": ("title", "tag"), "split_data": None, "seed": 3}
    weights = {"tfidf": 0.5, "runs/a/best_model": 1.0}
    blend = BlendFile(weights, False, True, {"recall@10": 0.1, "ndcg@10": 0.05, "users": 9}, told, "mark")
    write_blend("runs/blend", blend, ["tfidf"], commit="abc")
    told = {"interaction_data": "table.csv", "text_keys": ("title", "tag")}
    assert read_blend(blend_file("runs/blend"), "--checkpoint") == replace(blend, data=told)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    found = read_blend("../runs/blend/blend.json", "--checkpoint")
    assert list(found.parts) == ["tfidf", "../runs/a/best_model"]
    assert found.data["interaction_data"] == "../table.csv"
    assert is_blend("../runs/blend") and is_blend("tfidf") and not is_blend("../runs/a/best_model")


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"scaling": "to the maximum"}, {"parts": []}, {"parts": [{"name": "tfidf"}]},
     {"parts": [{"name": "tfidf", "weight": "1"}]}, {"parts": [{"name": "tfidf", "weight": -1}]},
     {"parts": [{"name": "tfidf", "weight": 1}] * 2}, {"data": None}, {"keep_seen": "no"}, None],
)  # fmt: skip
def test_a_file_that_is_no_blend_is_refused(tmp_path, change):
    blend = BlendFile({"tfidf": 1.0}, False, False, {}, {}, "mark")
    write_blend(tmp_path, blend, ["tfidf"])
    path = tmp_path / "blend.json"
    read_blend(path, "--checkpoint")
    path.write_text(json.dumps(json.loads(path.read_text()) | change) if change else "{")
    with pytest.raises(InputError, match="is no blend.json of this version.*Make it anew"):
        read_blend(path, "--checkpoint")


def test_parts_that_are_nothing_or_there_twice_are_refused(tmp_path):
    with pytest.raises(InputError, match="'knn' is no checkpoint.*none of item_knn, tfidf"):
        checkpoints_of(["tfidf", "knn"], "--checkpoint", UNTRAINED)
    with pytest.raises(InputError, match=r"tfidf\+: an empty part is no checkpoint"):
        checkpoints_of(["tfidf", ""], "--checkpoint", UNTRAINED)
    with pytest.raises(InputError, match="names tfidf twice"):
        checkpoints_of(["tfidf", "tfidf"], "--checkpoint", UNTRAINED)
    write_blend(tmp_path, BlendFile({"tfidf": 1.0}, False, False, {}, {}, "mark"), ["tfidf"])
    with pytest.raises(InputError, match="is a blend itself. Name its parts"):
        checkpoints_of([str(tmp_path), "tfidf"], "--checkpoint", UNTRAINED)


def test_a_search_gives_a_row_of_scores(inputs):
    """See test_generation for what the search finds; here, that every item has its id's score or none."""
    from pixelrec_train.evaluation.generation import Generated
    from pixelrec_train.semantic_id.trie import Trie

    codes = np.random.default_rng(0).integers(0, 3, size=(20, 2))
    trie = Trie.of(codes)

    def search(histories, beams):
        leaves = np.tile(np.arange(trie.num_leaves), (len(histories), 1))[:, :3]
        return np.concatenate([leaves, [[-1]] * len(histories)], axis=1), np.array([[-1.0, -2, -3, -9]])

    scores = Generated(search, trie, 3).score([np.array([1])])[0]
    for item in range(20):
        leaf = trie.leaf_of[item]
        assert scores[item] == (-1.0 - leaf if leaf < 3 else -np.inf)


def test_ranking_flags_of_a_pool_are_those_of_judging(inputs, parts):
    """What is left out is never a candidate."""
    valid = inputs.split.valid
    ranking = SimpleNamespace(keep_seen=False, eval_batch_size=7, topk=(10,))
    pool = Pool.of(Blend(parts, [1, 1]), valid, ranking, candidates=5)
    for e in range(len(valid)):
        there = pool.values[e, :, 0] > -1e8
        assert not set(pool.items[e][there].tolist()) & set(valid.history(e).tolist())
