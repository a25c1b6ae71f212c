"""Baselines against their slow twins, and the rules all of them are ranked by."""

import math
from collections import Counter
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import inputs_of
from transformers import set_seed

from pixelrec_train import distributed
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.protocols import before_last
from pixelrec_train.data.windows import TwoTowerCollator
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.metrics import figures, paired_p
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores, Popularity
from pixelrec_train.model.sasrec_model import SASRecModel
from pixelrec_train.tasks.sasrec import SASRecTask
from pixelrec_train.untrained.item_knn import item_knn
from pixelrec_train.untrained.tfidf import tfidf


@pytest.fixture(scope="module")
def inputs(demo_config):
    return inputs_of(demo_config)


def test_places_are_those_of_a_sorted_list():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, size=(40, 12)).astype(float)  # many ties
    target = rng.integers(0, 12, size=40)
    seen = [rng.choice(12, size=n, replace=False) for n in rng.integers(0, 6, size=40)]
    by_scores = ByScores(lambda histories: scores)
    places, *_ = by_scores.find([[0]] * 40, seen, target, 13)
    lists = by_scores.recommend([[0]] * 40, seen, 13)
    for row, place in enumerate(places):
        order = [i for i in sorted(range(12), key=lambda i: (-scores[row, i], i)) if i not in set(seen[row])]
        assert place == (order.index(target[row]) if target[row] in order else 13)
        assert lists[row].tolist() == order + [-1] * (13 - len(order))


def test_a_score_that_is_not_a_number_helps_nobody():
    scores = np.array([[np.nan, 1.0, 2.0], [np.nan, np.nan, np.nan]])
    places, *_ = ByScores(lambda histories: scores).find([[0], [0]], [], np.array([0, 1]), 3)
    assert places.tolist() == [3, 3]


def test_a_target_that_is_left_out_is_absent_in_a_small_catalogue_too():
    items = np.array([0, 1, 1])
    held_out = HeldOut(np.array([0]), np.array([0]), np.array([2]), items[2:], items)
    settings = SimpleNamespace(topk=(10, 50), keep_seen=False, eval_batch_size=4)
    by_scores = ByScores(lambda histories: np.ones((1, 4)))
    assert judge(by_scores, held_out, settings).places.tolist() == [50]


def test_counting_scores_gives_popularitys_own_places(inputs, demo_config):
    counts, test = inputs.split.popularity, inputs.split.test
    by_scores = ByScores(lambda histories: np.tile(counts, (len(histories), 1)))
    expected = judge(by_scores, test, demo_config).places
    assert np.array_equal(expected, judge(Popularity(counts), test, demo_config).places)


def test_item_knn_is_the_sum_of_cosines_between_sets_of_users(inputs):
    data = inputs.interactions
    users_of = [set() for _ in range(data.num_items)]
    for user in range(data.num_users):
        for item in data.items[data.offsets[user] : data.offsets[user + 1] - 2]:
            users_of[item].add(user)

    def cosine(a, b):
        if a == b or not users_of[a] or not users_of[b]:
            return 0.0
        return len(users_of[a] & users_of[b]) / math.sqrt(len(users_of[a]) * len(users_of[b]))

    histories = [inputs.split.test.history(e) for e in range(3)]
    fast = item_knn(inputs.split.taken, data.num_items, recent=4, decay=0.5)(histories)
    for history, scores in zip(histories, fast, strict=True):
        recent = history[-4:][::-1]  # newest first
        assert np.count_nonzero(scores) > 3
        for item in [*np.flatnonzero(scores), *range(0, data.num_items, 37)]:
            expected = sum(0.5**age * cosine(item, taken) for age, taken in enumerate(recent))
            assert scores[item] == pytest.approx(expected, abs=1e-5)


def test_tfidf_is_the_cosine_of_weighted_words():
    texts = ["red screw steel", "blue screw", "garden hose hose", "steel hose", ""]
    words = [Counter(text.split()) for text in texts]
    found_in = Counter(word for counts in words for word in counts)
    vectors = []
    for counts in words:
        vector = {
            w: (1 + math.log(n)) * (math.log((1 + 5) / (1 + found_in[w])) + 1) for w, n in counts.items()
        }
        length = math.sqrt(sum(v * v for v in vector.values())) or 1
        vectors.append({w: v / length for w, v in vector.items()})
    history = np.array([2, 0])
    for item, score in enumerate(tfidf(texts, recent=3, decay=0.5)([history])[0]):
        cosines = [sum(v * vectors[item].get(w, 0) for w, v in vectors[h].items()) for h in (0, 2)]
        assert score == pytest.approx(cosines[0] + 0.5 * cosines[1], abs=1e-6)


def test_tfidf_reads_chinese_by_character_and_refuses_texts_without_words():
    scores = tfidf(["汤底教程", "教程 miso", "花园", "x"])([np.array([0])])[0]
    assert scores[1] > 0 and scores[2] == scores[3] == 0
    with pytest.raises(InputError, match="no word.*--text_keys"):
        tfidf(["", "the"])


def test_counts_before_the_last_two_do_not_depend_on_windows(inputs):
    data, slow = inputs.interactions, Counter()
    for user in range(data.num_users):
        slow.update(data.items[data.offsets[user] : data.offsets[user + 1]][:-2].tolist())
    counts = before_last(data, 2).counts(data.num_items)
    assert counts.tolist() == [slow[item] for item in range(data.num_items)]
    assert counts.tolist() == inputs.split.popularity.tolist()


def test_the_paired_p_is_that_of_resampled_users():
    rng = np.random.default_rng(1)
    ours, theirs = np.minimum(rng.integers(0, 60, 400), 50), np.minimum(rng.integers(0, 75, 400), 50)
    p = paired_p(ours, theirs, (10, 50))["recall@10"]
    users = rng.integers(0, 400, size=(4000, 400))
    differences = (ours[users] < 10).mean(1) - (theirs[users] < 10).mean(1)
    slow = 2 * min((differences <= 0).mean(), (differences >= 0).mean())
    assert p == pytest.approx(slow, abs=0.03)
    assert paired_p(ours, ours, (10,))["recall@10"] == 1.0
    assert paired_p(ours * 0, ours * 0 + 50, (10,))["ndcg@10"] == pytest.approx(0.0002)


@pytest.fixture
def sasrec(inputs, demo_config):
    set_seed(0)
    model = SASRecModel(inputs.interactions.num_items, 6, 32, 2, 2, dropout=0.0)
    windows = [np.asarray(inputs.interactions.items[a:b]) for a, b in inputs.split.windows[:8]]
    collator = TwoTowerCollator(ItemText.unread(inputs.interactions.num_items), None, 6)
    return SASRecTask(model), collator.collate(windows, np.zeros(0, int)), windows


def test_sasrecs_loss_is_the_cross_entropy_of_one_position_at_a_time(sasrec):
    task, batch, windows = sasrec
    losses = []
    with torch.no_grad():
        for window in windows:
            for s in range(len(window) - 1):
                hidden = task.model(torch.from_numpy(window[: s + 1].astype(np.int64))[None])[0, -1]
                scores = [float(hidden @ vector) for vector in task.model.items]
                losses.append(math.log(sum(map(math.exp, scores))) - scores[window[s + 1]])
        assert task(batch)[0].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_sasrecs_loss_on_two_ranks_is_that_on_one(sasrec):
    """Each rank divides by the mean number of steps, so that the mean over ranks is the mean over steps."""
    task, batch, windows = sasrec
    losses = []
    for rank in range(2):
        with patch.multiple(distributed, world_size=lambda: 2, rank=lambda rank=rank: rank):
            collator = TwoTowerCollator(ItemText.unread(len(task.model.items)), None, 6)
            losses.append(task(collator.collate(windows, np.zeros(0, int)))[0].item())
    assert np.mean(losses) == pytest.approx(task(batch)[0].item(), rel=1e-6) and losses[0] != losses[1]


def test_sasrec_learns_a_batch_by_heart_and_ranks_by_it(sasrec, demo_config):
    task, batch, windows = sasrec
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss, metrics = task(batch)
        loss.backward()
        optimizer.step()
    assert metrics["top1_acc"] > 0.95 and loss < 0.3
    items = np.concatenate(windows)
    ends = np.cumsum([len(w) for w in windows])
    starts = ends - [len(w) for w in windows]
    held_out = HeldOut(np.arange(len(windows)), starts, ends - 1, items[ends - 1], items)
    settings = SimpleNamespace(topk=(10,), keep_seen=True, eval_batch_size=3)
    places = judge(ByScores(task.model.score), held_out, settings).places
    assert figures(places, (10,))["recall@10"] > 0.9


def test_sasrec_without_a_window_has_zero_loss_and_finite_gradients(sasrec):
    task, batch, windows = sasrec
    collator = TwoTowerCollator(ItemText.unread(len(task.model.items)), None, 6)
    loss, _ = task(collator.collate([windows[0][:0]] * 3, np.zeros(0, int)))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())


def test_truncated_history_sums_come_nearer_with_their_width(inputs):
    knn = item_knn(inputs.split.taken, inputs.interactions.num_items)
    histories = [inputs.split.test.history(e) for e in range(20)]
    exact = knn(histories)
    errors = [np.abs(knn.truncated(width)(histories) - exact).max() for width in (8, 64, 999)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4
    vectors = knn.truncated(64)
    assert np.allclose(vectors.users(histories) @ vectors.right.T, vectors(histories), atol=1e-5)
