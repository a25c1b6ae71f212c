"""Ranking the whole catalogue: FAISS, exact scores and brute force are one."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from conftest import inputs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.faiss_index import way_of_search
from pixelrec_train.evaluation.index import build_index, ranked, recommend, unit
from pixelrec_train.evaluation.lists import drop_seen
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores, Popularity
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue, encode_histories
from pixelrec_train.evaluation.rough import Fp32, Int8
from pixelrec_train.evaluation.shards import Shards
from pixelrec_train.evaluation.validation_loss import ValidationLoss
from pixelrec_train.evaluation.vectors import Vectors
from pixelrec_train.losses.nce import nce_loss
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.trainings import train_two_tower


def brute_force(queries, items, seen, k):
    """Full score matrix, seen items at the bottom, equal scores by item number."""
    scores = (unit(queries).astype(np.float64)) @ unit(items).astype(np.float64).T
    lists = np.full((len(queries), k), -1)
    for row, (score, known) in enumerate(zip(scores, seen, strict=True)):
        order = [i for i in np.lexsort((np.arange(len(score)), -score)) if i not in set(known)]
        lists[row, : len(order[:k])] = order[:k]
    return lists


@given(st.integers(1, 300), st.integers(1, 30), st.integers(1, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("retrieval", ["faiss", "exact"])
def test_lists_are_those_of_brute_force(retrieval, num_items, k, per_block, seed):
    rng = np.random.default_rng(seed)
    items, queries = rng.normal(size=(num_items, 16)), rng.normal(size=(6, 16))
    seen = [rng.integers(0, num_items, size=n) for n in rng.integers(0, num_items, size=6)]  # repeats too
    seen[0], seen[1] = seen[0][:0], np.arange(num_items)  # nothing seen; everything seen
    expected = brute_force(queries, items, seen, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixelrec_train.evaluation.rough.ITEMS_PER_BLOCK", per_block)
        lists = recommend(build_index(items, retrieval), queries, seen, k, num_items)
    assert np.array_equal(lists, expected)
    assert (expected[1] == -1).all()


def slow_scores(queries, items):
    """Each as one number: exact in fp64, rounded to fp32."""
    return (queries.astype(np.float64) @ items.astype(np.float64).T).astype(np.float32)


def near_ties(rng, num_items, width, case):
    """Items and users among whom many scores are equal, or differ in their last bit."""
    if case == "whole numbers":  # whose products fp64 adds without rounding, and fp32 does not
        items = rng.integers(-(2**12), 2**12, (num_items, width)) // 2 ** rng.integers(0, 12)
        items = items[rng.integers(0, max(1, num_items // 2), num_items)]  # twins
        items[:, 0] += rng.integers(0, 2, num_items)
        queries = rng.integers(-(2**12), 2**12, (9, width))
    elif case == "one bit apart":
        items = np.repeat(rng.normal(size=(1, width)), num_items, 0).astype(np.float32)
        at = np.arange(num_items), rng.integers(0, width, num_items)
        items[at] = np.nextafter(items[at], np.float32(9))
        queries = 2.0 ** rng.integers(-9, 9, (9, width))  # times powers of two: no product is rounded
    else:  # far from the origin, with one large entry, of all lengths
        items = rng.normal(size=(num_items, width)) * rng.uniform(0, 3, (num_items, 1)) + 40
        queries = rng.normal(size=(9, width))
        queries[:, 0] *= 300
    queries[0], items[rng.integers(0, num_items)] = 0, 0
    return items.astype(np.float32), queries.astype(np.float32)


@given(
    st.sampled_from(["whole numbers", "one bit apart", "far"]), st.integers(1, 300), st.integers(1, 40),
    st.sampled_from([1, 7, 16, 64]), st.integers(1, 20), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", [Int8, Fp32])
def test_counted_places_and_lists_are_those_of_all_scores_sorted(
    kind, case, num_items, width, per_block, k, seed
):
    rng = np.random.default_rng(seed)
    items, queries = near_ties(rng, num_items, width, case)
    seen = [rng.integers(0, num_items, size=rng.integers(0, 1 + num_items // 2)) for _ in queries]
    target = rng.integers(-1, num_items, len(queries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pixelrec_train.evaluation.exact.rough_scores", lambda vectors: kind(vectors, per_block)
        )
        places, (lists, values) = Shards(items, "exact", cosines=False).find(queries, seen, k, target)
    scores = slow_scores(queries, items)
    for row, known in enumerate(seen):
        order = np.argsort(-scores[row], kind="stable")
        order = order[~np.isin(order, known)][:k]
        assert lists[row].tolist() == order.tolist() + [-1] * (k - len(order))
        assert values[row, : len(order)].tolist() == scores[row, order].tolist()
        assert places[row] == (order.tolist().index(target[row]) if target[row] in order else k)


@pytest.mark.parametrize("kind", [Int8, Fp32])
def test_rough_scores_are_as_near_as_they_say(kind):
    """And say something: for vectors of normal numbers less than a fiftieth of their lengths."""
    rng = np.random.default_rng(0)
    for width, scale in ((1, 1.0), (48, 1e-3), (512, 1e4)):
        items = torch.from_numpy((rng.normal(size=(700, width)) * scale).astype(np.float32))
        queries = torch.from_numpy(rng.normal(size=(9, width)).astype(np.float32)).double()
        rough = kind(Vectors(items.numpy()), 128)
        asked = rough.ask(queries)
        scores = torch.cat([rough.scores(asked.operand, n) for n in range(len(rough.blocks))], dim=1)
        error = asked.unit[:, None] * scores + asked.shift[:, None] - queries @ items.double().T
        assert (error.abs() <= asked.bound[:, None]).all()
        assert (asked.bound <= 0.03 * queries.norm(dim=1) * items.norm(dim=1).max()).all()


def test_embeddings_that_are_not_finite_are_never_good_places():
    items, users = np.eye(4, dtype=np.float32), np.full((1, 4), np.nan, np.float32)
    for retrieval in ("faiss", "exact"):
        index = build_index(items, retrieval)
        assert Shards(items, retrieval).find(users, [[]], 3, [0])[0].tolist() == [3]
        assert recommend(index, users, [[]], 3, 4).tolist() == [[-1, -1, -1]]
    with pytest.raises(InputError, match="the embeddings of 1 of 4 items are nan or infinite"):
        build_index(np.diag([1, 1, np.inf, 1]), "exact")


def test_a_missing_faiss_is_one_sentence_that_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu.*--retrieval exact"):
        build_index(np.ones((3, 2)), "faiss")
    build_index(np.ones((3, 2)), "exact")


class FaissOnGpus:
    """Stands in for faiss-gpu: the same searches, a note of what it was told; k is limited as on GPUs."""

    StandardGpuResources = object

    class GpuMultipleClonerOptions:
        useFloat16 = shard = False

    def __init__(self, gpus):
        self.gpus, self.clones = gpus, []

    def __getattr__(self, name):
        return getattr(faiss, name)

    def get_num_gpus(self):
        return self.gpus

    def index_cpu_to_gpus_list(self, index, co, gpus):
        self.clones.append((gpus, "shards" if co.shard else "copies", co.useFloat16))
        return OnGpu(index)


class OnGpu:
    def __init__(self, index):
        self.index = index

    def search(self, queries, k):
        assert k <= 2048
        return self.index.search(queries, k)


@pytest.mark.parametrize(
    ("retrieval", "gpus", "free", "ranks", "expected"),
    [("faiss", 1, 1000, "1", ([0], "copies", False)), ("faiss", 8, 1000, "8", ([5], "copies", False)),
     ("faiss", 4, 1 << 30, "1", ([0, 1, 2, 3], "copies", False)),
     ("faiss", 4, 1000, "1", ([0, 1, 2, 3], "shards", False)),
     ("faiss_fp16", 2, 2 * 3000 * 8 * 2, "1", ([0, 1], "copies", True))],
)  # fmt: skip
def test_an_index_goes_to_the_gpus_and_gives_the_same_lists(
    monkeypatch, retrieval, gpus, free, ranks, expected
):
    """With a stand-in for faiss-gpu, as there is no GPU here."""
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(3000, 8)), rng.normal(size=(30, 8))
    seen = [rng.choice(3000, n, replace=False) for n in (2500, *rng.integers(0, 40, 29))]
    on_cpu = ranked(build_index(items, "faiss"), users, seen, 10, 3000)
    fake = FaissOnGpus(gpus)
    monkeypatch.setattr("pixelrec_train.evaluation.faiss_index.import_faiss", lambda: fake)
    monkeypatch.setattr("pixelrec_train.evaluation.faiss_index.distributed.uses_gpu", lambda: True)
    monkeypatch.setattr("pixelrec_train.evaluation.vectors.distributed.device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (free, 1 << 40))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.setenv("LOCAL_RANK", "5")
    on_gpus = ranked(build_index(items, retrieval), users, seen, 10, 3000)
    assert fake.clones == [expected]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(on_gpus, on_cpu, strict=True))


def test_lists_are_made_where_the_device_is(monkeypatch):
    assert way_of_search("auto") == "faiss" and way_of_search("exact") == "exact"
    with pytest.raises(InputError, match="--retrieval faiss_fp16 needs a GPU and FAISS for GPUs; this run"):
        way_of_search("faiss_fp16")
    monkeypatch.setattr("pixelrec_train.evaluation.faiss_index.distributed.uses_gpu", lambda: True)
    assert way_of_search("auto") == "exact" and way_of_search("faiss") == "faiss"
    with pytest.raises(InputError, match="faiss_fp16 needs"):
        way_of_search("faiss_fp16")  # there is a GPU, and faiss-cpu


def test_equal_items_are_ordered_by_number_in_both_ways():
    items = np.ones((7, 4), np.float32)
    for retrieval in ("faiss", "exact"):
        lists = recommend(build_index(items, retrieval), np.ones((1, 4)), [np.array([2])], 7, 7)
        assert lists.tolist() == [[0, 1, 3, 4, 5, 6, -1]]


@pytest.mark.parametrize("items_per_block", [64, 16384])
def test_equal_items_at_the_cut_are_the_same_ones_in_both_ways(items_per_block, monkeypatch):
    monkeypatch.setattr("pixelrec_train.evaluation.rough.ITEMS_PER_BLOCK", items_per_block)
    rng = np.random.default_rng(0)
    items = rng.normal(size=(3000, 8)).astype(np.float32)
    items[rng.choice(3000, 900, replace=False)] = items[0]  # many items without text share one embedding
    queries = np.concatenate([items[:1], rng.normal(size=(4, 8))])
    seen = [rng.choice(3000, 120, replace=False) for _ in range(5)]
    lists = [recommend(build_index(items, way), queries, seen, 50, 3000) for way in ("faiss", "exact")]
    assert np.array_equal(*lists)


@pytest.mark.parametrize("retrieval", ["faiss", "exact"])
def test_items_that_share_a_vector_are_equals_in_matrix_products_too(retrieval):
    """Whose last columns are rounded in another way: 64 queries at a time, and 999 items."""
    rng = np.random.default_rng(0)
    items, queries = rng.normal(size=(999, 64)).astype(np.float32), rng.normal(size=(64, 64))
    items[::7] = items[0]
    lists = recommend(build_index(items, retrieval), queries, [np.arange(3)] * 64, 999, 999)
    for row in lists:
        twins = np.flatnonzero((row >= 0) & (row % 7 == 0))
        assert (
            row[twins].tolist() == list(range(7, 999, 7)) and np.ptp(twins) == len(twins) - 1
        )  # side by side


def test_dropping_seen_items_keeps_the_order_and_fills_up_with_minus_one():
    ranked = np.array([[4, 2, 0, 1], [1, 3, 2, 0]])
    assert drop_seen(ranked, [np.array([2, 4]), np.array([], int)], 3, 5).tolist() == [[0, 1, -1], [1, 3, 2]]


@pytest.fixture(scope="module")
def trained(demo_config):
    """Inputs and a model of the demo; random weights rank as well as any for these claims."""
    torch.manual_seed(0)
    return inputs_of(demo_config), HLLMModel.starting(demo_config).eval()


def places(trained, config, held_out=None, **changes):
    inputs, model = trained
    settings = replace(config, **changes)
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, settings.eval_tokens)
    recommender = TwoTower.of(model, catalogue, config.max_seq_length, settings.retrieval)
    return judge(recommender, held_out or inputs.split.test, settings).places


@pytest.mark.parametrize(
    "changes",
    [{"eval_batch_size": 1}, {"eval_batch_size": 7}, {"eval_batch_size": 64}, {"eval_tokens": 60},
     {"retrieval": "exact"}],
)  # fmt: skip
def test_places_do_not_depend_on_batching_or_on_the_way_of_searching(trained, demo_config, changes):
    assert np.array_equal(places(trained, demo_config), places(trained, demo_config, **changes))


def test_places_do_not_depend_on_the_order_of_users(trained, demo_config):
    test = trained[0].split.test
    order = np.random.default_rng(0).permutation(len(test))
    shuffled = HeldOut(test.users[order], test.start[order], test.end[order], test.target[order], test.items)
    assert np.array_equal(places(trained, demo_config)[order], places(trained, demo_config, shuffled))


def test_places_are_those_of_one_user_at_a_time(trained, demo_config):
    """The slow way: each item and each history alone, a full score vector, the seen items struck out."""
    inputs, model = trained
    k = max(demo_config.topk)
    with torch.no_grad():
        items = torch.stack(
            [model.encode_items(inputs.item_text.items([i]))[0] for i in range(inputs.interactions.num_items)]
        )
        for keep_seen in (False, True):
            fast = places(trained, demo_config, keep_seen=keep_seen)
            for e in range(0, len(inputs.split.test), 9):
                history, target = inputs.split.test.history(e), inputs.split.test.target[e]
                recent = torch.from_numpy(history[-(demo_config.max_seq_length - 1) :].astype(np.int64))
                user = model.user_llm(items[recent][None])[0, -1]
                scores = torch.nn.functional.cosine_similarity(user[None], items)
                if not keep_seen:
                    scores[torch.from_numpy(history.astype(np.int64))] = -2
                place = k if not keep_seen and target in history else int((scores > scores[target]).sum())
                assert abs(fast[e] - min(place, k)) <= 1  # neighbours may swap within fp32 rounding


def test_scores_are_the_cosines_that_lists_are_made_of(trained, demo_config):
    inputs, model = trained
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, 4096)
    towers = TwoTower.of(model, catalogue, demo_config.max_seq_length, demo_config.retrieval)
    slow = judge(ByScores(towers.score), inputs.split.test, demo_config).places
    fast = judge(towers, inputs.split.test, demo_config).places
    assert (np.abs(fast - slow) <= 1).all() and (fast == slow).mean() > 0.97  # neighbours may swap


@pytest.mark.parametrize("retrieval", ["faiss", "exact"])
def test_an_inner_product_ranks_by_lengths_too(retrieval):
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(50, 8)) * rng.uniform(0.1, 9, (50, 1)), rng.normal(size=(4, 8))
    towers = TwoTower(lambda histories, times=None: torch.from_numpy(users), items, retrieval, cosines=False)
    lists = towers.recommend([np.array([0])] * 4, [np.array([3])] * 4, 49)
    for row, scores in zip(lists, users @ items.T, strict=True):
        assert row.tolist() == [i for i in np.argsort(-scores).tolist() if i != 3]


def test_a_padded_history_is_encoded_as_if_alone(trained, demo_config):
    inputs, model = trained
    catalogue = torch.from_numpy(encode_catalogue(model.encode_items, inputs.item_text, 4096))
    histories = [np.arange(n) for n in (1, 5, 3, 9)]
    together = encode_histories(model.user_llm, catalogue, histories, demo_config.max_seq_length)
    alone = [
        encode_histories(model.user_llm, catalogue, [h], demo_config.max_seq_length)[0] for h in histories
    ]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


def test_validation_loss_is_the_training_loss_at_the_target(trained, demo_config):
    inputs, model = trained
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, 4096)
    loss = ValidationLoss(catalogue, model.logit_scale.detach(), inputs.split.train_counts, 50, 0.99, seed=5)
    recommender = TwoTower.of(model, catalogue, demo_config.max_seq_length, demo_config.retrieval)
    recommender.loss = loss
    mean = judge(recommender, inputs.split.valid, demo_config).counts["valid_loss"]
    valid, table = inputs.split.valid, torch.from_numpy(catalogue)
    histories = [valid.history(e) for e in range(len(valid))]
    user = encode_histories(model.user_llm, table, histories, demo_config.max_seq_length)
    target, valid_rows = table[valid.target.astype(np.int64)], torch.ones(len(user), 1, dtype=torch.bool)
    expected, _ = nce_loss(
        user[:, None], target[:, None], loss.pool, valid_rows, model.logit_scale, same_item_cosine=0.99
    )
    assert mean == pytest.approx(expected.item(), rel=1e-5)


def test_users_judged_inside_a_run_are_drawn_once(trained, demo_config):
    inputs, model = trained
    config, valid = replace(demo_config, valid_users=20), inputs.split.valid
    task = SimpleNamespace(model=model)
    found, again = (train_two_tower.validate(task, inputs, config) for _ in range(2))
    drawn = np.sort(np.random.default_rng(config.seed).permutation(len(valid))[:20])
    of_all = places(trained, demo_config, valid)
    expected = figures(of_all[drawn], config.topk)
    assert {name: found[name] for name in expected} == expected and found == again
    assert expected != figures(of_all, config.topk)
    everybody = train_two_tower.validate(task, inputs, replace(demo_config, valid_users=10**6))
    assert everybody == train_two_tower.validate(task, inputs, demo_config)


def test_popularity_is_that_of_the_slow_way(trained, demo_config):
    inputs, _ = trained
    test, counts = inputs.split.test, inputs.split.popularity
    fast = judge(Popularity(counts), test, demo_config).places
    for e in range(len(test)):
        seen = set(test.history(e).tolist())
        order = [i for i in sorted(range(len(counts)), key=lambda i: (-counts[i], i)) if i not in seen]
        place = order.index(test.target[e]) if test.target[e] in order else 10**9
        assert fast[e] == min(place, max(demo_config.topk))


def test_a_planted_answer_is_found():
    """Each user is an item's own vector: the item itself is seen, its planted twin comes first."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=(100, 24))
    items = np.concatenate([base, base + 0.01 * rng.normal(size=base.shape)])
    lists = recommend(build_index(items, "faiss"), base, [np.array([i]) for i in range(100)], 5, 200)
    assert (lists[:, 0] == np.arange(100, 200)).all()
    assert figures(np.zeros(100, int), (1,))["recall@1"] == 1.0
