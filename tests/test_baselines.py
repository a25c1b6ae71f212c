"""Baselines against their slow twins, and the rules all of them are ranked by."""

import math
from collections import Counter
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import inputs_of
from transformers import set_seed

from pixelrec_train import distributed
from pixelrec_train.commands.compare import CompareConfig
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.data.loader import Loader, Slot
from pixelrec_train.data.negatives import Drawn, SharedNegatives
from pixelrec_train.data.protocols import before_last
from pixelrec_train.data.stretches import StretchCollator, StretchDataset, cut_stretches
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.metrics import figures, paired_p
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores, Popularity, placed
from pixelrec_train.losses import cross_entropy
from pixelrec_train.losses.sampled_softmax import sampled_cross_entropy
from pixelrec_train.model.esasrec_model import LigrBlock
from pixelrec_train.model.hstu_model import HstuBlock, time_bucket
from pixelrec_train.tasks.next_item import NextItemTask
from pixelrec_train.trainings import train_sequential
from pixelrec_train.trainings.baselines import chosen_ease
from pixelrec_train.trainings.train_sequential import MODELS, OfSequences
from pixelrec_train.untrained import item_knn as knn_module
from pixelrec_train.untrained.ease import DECAYS, PENALTIES, ease
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


def test_places_are_the_same_whether_lists_are_kept_or_only_counted():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, size=(60, 12)).astype("f4")  # many ties
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[rng.random(scores.shape) < 0.1] = np.inf
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    target = rng.integers(-1, 12, size=60)
    left_out = [rng.choice(12, size=n, replace=False) for n in rng.integers(0, 6, size=60)]
    for k in (3, 12, 20):
        kept, counted = (placed(scores, left_out, target, k, wanted) for wanted in (True, False))
        assert np.array_equal(kept.places, counted.places) and 0 < (kept.places == k).sum() < 60
        assert counted.lists.items.shape == kept.lists.items.shape and (counted.lists.items == -1).all()


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


def test_a_large_catalogue_keeps_the_nearest_and_forgets_a_user_exactly(inputs, monkeypatch):
    """Built block by block; what is left out of a model's counts does not depend on what is kept."""
    taken, num_items = inputs.split.taken, inputs.interactions.num_items
    whole = knn_module.ItemKnn(taken, num_items)
    cosines = whole.sums().left.toarray()
    for name, value in (("ALL_PAIRS", 0), ("NEIGHBOURS", 7), ("ITEMS_AT_ONCE", 50)):
        monkeypatch.setattr(knn_module, name, value)
    told, few = [], knn_module.ItemKnn(taken, num_items)
    kept = few.sums(told.append).left.toarray()
    expected = np.zeros_like(cosines)
    for row, of_row in enumerate(cosines):
        best = np.argsort(-of_row, kind="stable")[:7]
        expected[row, best] = of_row[best]
    assert np.allclose(kept, expected) and (kept > 0).sum() < (cosines > 0).sum() and sum(told) == num_items
    users = np.arange(5)
    histories = [inputs.interactions.items[taken.start[u] : taken.end[u]] for u in users]
    assert np.allclose(few.without(histories, users), whole.without(histories, users), atol=1e-5)


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


def test_ease_is_the_best_linear_model_without_a_diagonal(inputs):
    """Each item's column solves its own ridge regression on the other items."""
    users, items = inputs.split.taken.pairs()
    kept = items < 30
    matrix = np.zeros((users.max() + 1, 30))
    matrix[users[kept], items[kept]] = 1
    taken = SimpleNamespace(pairs=lambda: (users[kept], items[kept]))
    fast = ease(taken, 30, penalty=3.0).left
    for item in range(30):
        others = [other for other in range(30) if other != item]
        x = matrix[:, others]
        slow = np.linalg.solve(x.T @ x + 3.0 * np.eye(29), x.T @ matrix[:, item])
        assert fast[item, item] == 0 and np.allclose(fast[others, item], slow, atol=1e-5)


def test_ease_sums_over_the_whole_history_and_refuses_a_large_catalogue(inputs):
    model = ease(inputs.split.taken, inputs.interactions.num_items, penalty=10.0)
    history = inputs.split.test.history(0)
    assert np.allclose(model([history])[0], sum(model.left[item] for item in history), atol=1e-5)
    with pytest.raises(InputError, match="20,001 items are more than 20,000"):
        ease(inputs.split.taken, 20_001, penalty=10.0)


def test_ease_takes_the_penalty_and_decay_that_rank_best_on_validation(inputs, demo_config):
    chosen, _, note = chosen_ease(demo_config, inputs.interactions, inputs.split)
    found = {}
    for penalty in PENALTIES:
        for decay in DECAYS:
            model = ByScores(ease(inputs.split.taken, inputs.interactions.num_items, penalty, None, decay))
            places = judge(model, inputs.split.valid, demo_config).places
            found[penalty, decay] = figures(places, demo_config.topk)["ndcg@10"]
    best = figures(judge(ByScores(chosen), inputs.split.valid, demo_config).places, demo_config.topk)[
        "ndcg@10"
    ]
    assert best >= max(found[penalty, decay] for penalty in PENALTIES[:2] for decay in DECAYS)
    assert best in found.values() and f"({100 * best:.2f})" in note


def test_every_item_but_the_first_is_a_target_once():
    lengths = np.array([0, 1, 2, 5, 6, 7, 11, 23])
    stop = np.cumsum(lengths)
    start = stop - lengths
    stretches = cut_stretches(start, stop, 6)
    targets = sorted(place for a, b in stretches for place in range(a + 1, b))
    assert targets == [place for a, b in zip(start, stop, strict=True) for place in range(a + 1, b)]
    assert all(2 <= b - a <= 6 for a, b in stretches)
    assert all(b - a == 6 for a, b in stretches if a not in start)  # the oldest of a user's is the short one


@pytest.fixture(params=MODELS)
def sequential(request, inputs):
    """(task, function of stretches -> batch, stretches, their items and times)"""
    set_seed(0)
    model = MODELS[request.param](inputs.interactions.num_items, 5, 32, 2, 2, dropout=0.0)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases of zero would hide what they do
            torch.nn.init.normal_(parameter, std=0.3)
    items = inputs.interactions.items
    times = np.random.default_rng(0).integers(0, 10**8, len(items)).cumsum()
    stretches = cut_stretches(inputs.split.taken.start, inputs.split.taken.end, 6)[:8]

    def batch(stretches, negatives=()):
        drawn = Drawn(np.array(negatives, int), np.zeros(len(negatives), "f4"))
        return StretchCollator(items, times).collate(stretches, drawn)

    return NextItemTask(model), batch, stretches, items, times


def one_at_a_time(task, stretches, items, times):
    """(hidden state, target) of every position, from the beginning of its stretch alone."""
    for a, b in stretches:
        for s in range(a + 1, b):
            read = torch.tensor(items[a:s].astype(np.int64))[None]
            yield task.model(read, torch.tensor(times[a:s].astype(float))[None])[0, -1], items[s]


def test_histories_share_rows_and_each_item_is_read_once_with_the_one_behind_it(sequential):
    _, batch, stretches, items, times = sequential
    found = batch([*stretches, (0, 0)])
    assert found.valid.sum() == (np.diff(stretches) - 1).sum() and found.items.shape[0] < len(stretches)
    read = []
    for row in range(len(found.items)):
        for history in range(1, int(found.history[row].max()) + 1):
            here = found.history[row] == history
            assert found.place[row][here].tolist() == list(range(int(here.sum())))
            read.append(
                tuple(tuple(part[row][here].tolist()) for part in (found.items, found.target, found.times))
            )
    expected = [
        tuple(tuple(x) for x in (items[a : b - 1], items[a + 1 : b], times[a : b - 1])) for a, b in stretches
    ]
    assert sorted(read) == sorted(expected)


def test_the_loss_over_a_catalogue_is_that_of_torch_however_large_scores_are(monkeypatch):
    monkeypatch.setattr(cross_entropy, "SCORES_IN_CACHE", 1)  # blocks of 64
    torch.manual_seed(0)
    hidden, table, labels = torch.randn(150, 8), torch.randn(40, 8), torch.randint(0, 40, (150,))
    hidden[:3] *= 200
    ours, twin = ([x.clone().requires_grad_() for x in (hidden, table)] for _ in range(2))
    loss, hits = cross_entropy.catalogue_cross_entropy(ours[0], labels, ours[1])
    scores = twin[0] @ twin[1].T
    expected = F.cross_entropy(scores, labels, reduction="sum")
    (loss / 7).backward(), (expected / 7).backward()
    torch.testing.assert_close(loss, expected)
    assert hits == (scores.argmax(-1) == labels).sum() > 0
    for found, slow in zip(ours, twin, strict=True):
        torch.testing.assert_close(found.grad, slow.grad, atol=1e-4, rtol=1e-4)


def sampled(hidden, labels, table, drawn):
    """((sum, hits), hidden, table): leaves that get the gradients."""
    leaves = [x.clone().requires_grad_() for x in (hidden, table)]
    items, log_expected = map(torch.from_numpy, drawn)
    return sampled_cross_entropy(leaves[0], labels, leaves[1], items, log_expected), *leaves


def test_with_every_item_drawn_once_the_sampled_softmax_is_the_full_one():
    torch.manual_seed(0)
    hidden, table, labels = torch.randn(50, 8), torch.randn(40, 8), torch.randint(0, 40, (50,))
    drawn = SharedNegatives(np.arange(1, 41), 40, 0.0, True, seed=0).draw(Slot(0, 0, 0))
    assert drawn.items.tolist() == list(range(40))
    (loss, hits), *ours = sampled(hidden, labels, table, drawn)
    twin = [x.clone().requires_grad_() for x in (hidden, table)]
    expected, their_hits = cross_entropy.catalogue_cross_entropy(twin[0], labels, twin[1])
    loss.backward(), expected.backward()
    torch.testing.assert_close(loss, expected)
    assert hits == their_hits
    for found, slow in zip(ours, twin, strict=True):
        torch.testing.assert_close(found.grad, slow.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_over_many_draws_the_corrected_loss_is_the_full_one_and_the_uncorrected_is_not(power):
    """So is the gradient, nearly: what is left of both shrinks with the number of draws."""
    torch.manual_seed(0)
    counts = np.random.default_rng(0).zipf(1.5, 300).clip(max=200)
    hidden, table = torch.randn(20, 8), torch.randn(300, 8) * 0.4
    labels = (hidden @ table.T).argmax(-1)
    twin = [x.clone().requires_grad_() for x in (hidden, table)]
    full = cross_entropy.catalogue_cross_entropy(twin[0], labels, twin[1])[0]
    full.backward()

    def off(draws, corrected):
        """(nats that the mean loss of a label is above the full one, distance of the mean gradients)"""
        negatives, losses = SharedNegatives(counts, draws, power, corrected, seed=1), []
        of_table = torch.zeros_like(table)
        for position in range(100):
            (loss, _), _, leaf = sampled(hidden, labels, table, negatives.draw(Slot(0, position, 0)))
            loss.backward()
            losses.append(loss.item())
            of_table += leaf.grad / 100
        distance = (of_table - twin[1].grad).norm() / twin[1].grad.norm()
        return (np.mean(losses) - full.item()) / 20, distance.item()

    few, many, uncorrected = off(20, True), off(150, True), off(150, False)
    assert abs(many[0]) < 0.06 and many[1] < few[1] < 0.2
    assert uncorrected[0] < -0.5 and uncorrected[1] > 3 * many[1]


def test_an_item_is_drawn_as_often_as_is_said_and_alike_for_the_same_slot():
    counts = np.array([0, 1, 4, 0, 9, 16, 1, 400])
    negatives = SharedNegatives(counts, 6, 0.5, True, seed=3)
    drawn = [negatives.draw(Slot(0, position, 0)) for position in range(4000)]
    often = np.bincount(np.concatenate([d.items for d in drawn]), minlength=8) / 4000
    assert np.allclose(often, 6 * np.sqrt(counts) / np.sqrt(counts).sum(), atol=0.03)
    for items, log_expected in drawn[:20]:
        np.testing.assert_allclose(np.exp(log_expected), 6 * np.sqrt(counts[items]) / 31, rtol=1e-5)
    many = SharedNegatives(np.ones(1000), 50, 0.0, False, seed=3)
    slots = Slot(0, 7, 1), Slot(0, 7, 5), Slot(1, 7, 1), Slot(0, 8, 1)
    one, again, *others = (many.draw(slot).items.tolist() for slot in slots)
    assert one == again and one not in others and not many.draw(slots[0]).log_expected.any()


def test_what_a_step_draws_is_the_same_on_every_rank_and_after_a_start_in_the_middle(inputs):
    taken, counts = inputs.split.taken, inputs.split.popularity

    def drawn(ranks, rank, skip=0):
        with patch.multiple(distributed, world_size=lambda: ranks, rank=lambda: rank):
            collator = StretchCollator(taken.items, None, SharedNegatives(counts, 9, 0.5, True, seed=0))
            stretches = StretchDataset(taken, 6)
            loader = Loader(stretches, collator, 64 // ranks, 0, num_workers=0, of_all_ranks=True)
            return [(*b.negatives.tolist(), *b.log_expected.tolist()) for b in loader.epoch(1, skip)]

    steps = drawn(1, 0)
    assert len({*steps}) == len(steps) > 3
    assert steps == drawn(2, 0) == drawn(2, 1) and steps[2:] == drawn(2, 1, skip=2)


def test_a_label_that_is_all_that_was_drawn_costs_nothing_and_gradients_are_finite():
    hidden, table = torch.ones(2, 4), torch.ones(5, 4)
    drawn = Drawn(np.array([3, 3]), np.zeros(2, "f4"))
    (loss, hits), *leaves = sampled(hidden, torch.tensor([3, 3]), table, drawn)
    loss.backward()
    assert loss == 0 and hits == 2 and all((leaf.grad == 0).all() for leaf in leaves)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_one_position_at_a_time(sequential):
    task, batch, stretches, items, times = sequential
    for negatives in ((), (3, 8, 8, int(items[stretches[0][0] + 1]))):
        losses = []
        for hidden, target in one_at_a_time(task, stretches, items, times):
            others = [i for i in negatives if i != target] if negatives else range(len(task.model.items))
            scores = [float(hidden @ task.model.items[i]) for i in others]
            own = float(hidden @ task.model.items[target])
            scores += [own] if negatives else []
            losses.append(math.log(sum(map(math.exp, scores))) - own)
        assert task(batch(stretches, negatives))[0].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_loss_on_two_ranks_is_that_on_one(sequential):
    """Each rank divides by the mean number of steps, so that the mean over ranks is the mean over steps."""
    task, batch, stretches, *_ = sequential
    losses = []
    for rank in range(2):
        with patch.multiple(distributed, world_size=lambda: 2, rank=lambda rank=rank: rank):
            losses.append(task(batch(stretches, (1, 2, 3)))[0].item())
    one = task(batch(stretches, (1, 2, 3)))[0].item()
    assert np.mean(losses) == pytest.approx(one, rel=1e-6) and losses[0] != losses[1]


def test_a_batch_is_learned_by_heart_and_ranked_by(sequential):
    task, batch, stretches, items, times = sequential
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss, metrics = task(batch(stretches))
        loss.backward()
        optimizer.step()
    assert metrics["top1_acc"] > 0.95 and loss < 0.3
    starts, ends = stretches.T
    held_out = HeldOut(np.arange(len(starts)), starts, ends - 1, items[ends - 1], items)
    settings = SimpleNamespace(topk=(10,), keep_seen=True, eval_batch_size=3)
    places = judge(OfSequences(task.model, times), held_out, settings).places
    assert figures(places, (10,))["recall@10"] > 0.9


def test_without_a_sequence_the_loss_is_zero_and_gradients_are_finite(sequential):
    task, batch, *_ = sequential
    loss, _ = task(batch([(0, 0)] * 3))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())


def silu(x):
    return x / (1 + math.exp(-x))


@torch.no_grad()
def test_hstus_attention_is_a_sum_over_pairs_without_softmax():
    set_seed(0)
    block = HstuBlock(width=6, heads=2, dropout=0.0, longest=9).eval()
    for bias in (block.by_distance, block.by_time):
        torch.nn.init.normal_(bias)
    x, times = torch.randn(1, 4, 6), torch.tensor([[0.0, 3.0, 3.5, 90000.0]], dtype=torch.float64)
    place = torch.arange(4)
    seconds = times[:, :, None] - times[:, None]
    fast = block(x, (place[:, None] - place).clamp(min=0), time_bucket(seconds))
    gate, query, key, value = F.silu(block.into(block.norm(x)))[0].split(6, -1)
    for s in range(4):
        read = torch.zeros(6)
        for head in (slice(0, 3), slice(3, 6)):
            for r in range(s + 1):
                gap = float(times[0, s] - times[0, r])
                bucket = 0 if gap < 2**-0.5 else int(2 * math.log2(gap) + 1)
                bias = block.by_distance[s - r] + block.by_time[bucket]
                read[head] += silu(float(query[s, head] @ key[r, head] + bias)) / 9 * value[r, head]
        slow = x[0, s] + block.out(block.read_norm(read) * gate[s])
        assert torch.allclose(fast[0, s], slow, atol=1e-5)


@torch.no_grad()
def test_a_ligr_block_is_softmax_attention_and_swiglu_behind_gates():
    set_seed(0)
    block = LigrBlock(width=6, heads=2, dropout=0.0).eval()
    x = torch.randn(4, 6)
    query, key, value = block.query_key_value(block.attention_norm(x)).split(6, -1)
    for s, slow in enumerate(x):
        read = torch.zeros(6)
        for head in (slice(0, 3), slice(3, 6)):
            terms = [math.exp(float(query[s, head] @ key[r, head]) / math.sqrt(3)) for r in range(s + 1)]
            for r, term in enumerate(terms):
                read[head] += term / sum(terms) * value[r, head]
        slow = slow + block.out(read) * block.attention_gate(slow).sigmoid()
        gate, up = block.up(block.feed_forward_norm(slow)).split(24)
        inner = torch.tensor([silu(float(g)) * float(u) for g, u in zip(gate, up, strict=True)])
        slow = slow + block.down(inner) * block.feed_forward_gate(slow).sigmoid()
        assert torch.allclose(block(x[None])[0, s], slow, atol=1e-5)


def test_hstu_reads_when_items_were_taken(inputs):
    set_seed(0)
    model = MODELS["hstu"](inputs.interactions.num_items, 5, 32, 2, 2, dropout=0.0).eval()
    torch.nn.init.normal_(model.blocks[0].by_time)
    history = np.array([4, 7, 9])
    scores = [
        model.score([history], [np.array(times)]) for times in ([1, 2, 3], [101, 102, 103], [1, 2, 900])
    ]
    assert np.allclose(scores[0], scores[1]) and not np.allclose(scores[0], scores[2])


def test_truncated_history_sums_come_nearer_with_their_width(inputs):
    knn = item_knn(inputs.split.taken, inputs.interactions.num_items)
    histories = [inputs.split.test.history(e) for e in range(20)]
    exact = knn(histories)
    errors = [np.abs(knn.truncated(width)(histories) - exact).max() for width in (8, 64, 999)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4
    vectors = knn.truncated(64)
    assert np.allclose(vectors.users(histories) @ vectors.right.T, vectors(histories), atol=1e-5)


def test_of_several_lengths_validation_chooses(monkeypatch):
    figures = {11: 0.07, 51: 0.09, 201: 0.08}
    trained = {length: ByScores(None) for length in figures}

    def train_one(name, folder, config, interactions, split):
        assert name == "sasrec" and folder == f"sasrec_{config.max_seq_length}"
        return trained[config.max_seq_length]

    of = {id(recommender): figures[length] for length, recommender in trained.items()}
    monkeypatch.setattr(train_sequential, "train_one", train_one)
    monkeypatch.setattr(train_sequential, "validate", lambda one, *_: {"ndcg@10": of[id(one)]})
    config = CompareConfig(interaction_data="a", text_data="b", seq_lengths=(11, 51, 201))
    notes = []
    best = train_sequential.train_sequential("sasrec", config, None, SimpleNamespace(valid=None), notes)
    assert best is trained[51]
    assert notes == ["sasrec: 51 items per sequence, by validation ndcg@10 (11 7.00, 51 9.00, 201 8.00 %)"]
