"""Figures as OpenOneRec's benchmark counts them, by hand and by its definitions spelled out with sets."""

import numpy as np
import pytest

from pixelrec_train.config import RankingFlags
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.evaluation.passes import Asked, passes, passes_text, samples_of
from pixelrec_train.evaluation.places import judge
from pixelrec_train.semantic_id.trie import Trie


def users(histories, targets, names=None):
    ends = np.cumsum([len(h) for h in histories])
    numbers = np.arange(len(ends)) if names is None else np.asarray(names)
    starts = np.concatenate([[0], ends[:-1]])
    return HeldOut(numbers, starts, ends, np.asarray(targets), np.concatenate(histories).astype(np.int32))


def test_two_samples_by_hand():
    """The first has targets 7, 8, 9 at places 4, 0 and nowhere; the second has 5 at place 1, named twice."""
    sample, key, place = np.array([0, 0, 0, 1, 1]), np.array([7, 8, 9, 5, 5]), np.array([4, 0, 99, 1, 1])
    assert passes(sample, key, place, (1, 2, 5)) == {
        "pass@1": 0.5, "position1_pass@1": 0.0, "recall@1": pytest.approx((1 / 3 + 0) / 2),
        "pass@2": 1.0, "position1_pass@2": 0.5, "recall@2": pytest.approx((1 / 3 + 1) / 2),
        "pass@5": 1.0, "position1_pass@5": 1.0, "recall@5": pytest.approx((2 / 3 + 1) / 2),
    }  # fmt: skip


def test_targets_behind_one_history_of_one_user_are_one_sample():
    held_out = users([[1, 2], [1, 2], [1, 2], [1, 2, 3], [1, 2]], [5, 6, 7, 8, 9], names=[0, 0, 1, 0, 0])
    assert samples_of(held_out).tolist() == [0, 0, 1, 2, 0]


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_the_definitions_on_lists_and_sets(seed):
    """Shared ids, several targets, seen items in the lists, beams that run out; in blocks and groups."""
    rng = np.random.default_rng(seed)
    codes, counts = rng.integers(0, 4, (60, 2)).astype(np.int32), rng.integers(0, 3, 60)
    trie, beams = Trie.of(codes, counts), 6
    histories = [rng.integers(0, 60, n) for n in rng.integers(1, 5, 12)]
    targets = [rng.integers(0, 60, n).tolist() for n in rng.integers(1, 4, 12)]
    rows = [(user, histories[user], target) for user in range(12) for target in targets[user]]
    held_out = users([h for _, h, _ in rows], [t for *_, t in rows], [user for user, *_ in rows])
    found = {user: np.append(rng.permutation(trie.num_leaves)[:-3], [-1] * 3) for user in range(12)}

    def search(numbers, width):
        leaves = np.stack([found[int(held_out.users[e])][:width] for e in numbers])
        return leaves, np.zeros(leaves.shape)

    ranking = RankingFlags(topk=(2, 3), eval_batch_size=4)
    counted = judge(Asked(search, trie, beams, held_out), held_out, ranking).counts
    of_item = {item: tuple(code) for item, code in enumerate(codes.tolist())}
    ids = [tuple(i) for i in trie.ids().tolist()]
    best_first = sorted(of_item, key=lambda item: (-counts[item], item))
    most_popular = {i: next(item for item in best_first if of_item[item] == i) for i in ids}
    for k in (1, beams):
        figures = {name: [] for name in ("pass", "position1_pass", "recall")}
        for_items = {name: [] for name in figures}
        for user in range(12):
            lists = [ids[leaf] for leaf in found[user][:k] if leaf >= 0]
            for kind, listed, wanted in (
                (figures, lists, [of_item[t] for t in targets[user]]),
                (for_items, [most_popular[i] for i in lists], targets[user]),
            ):
                kind["pass"].append(bool(set(listed) & set(wanted)))
                kind["position1_pass"].append(wanted[0] in listed)
                kind["recall"].append(len(set(listed) & set(wanted)) / len(set(wanted)))
        for level, kind in (("", figures), ("pid_", for_items)):
            for name, values in kind.items():
                assert counted[f"openonerec_{level}{name}@{k}"] == pytest.approx(np.mean(values))
    assert {"sid_recall@2", "average_ndcg@3"} <= counted.keys()


def test_three_figures_stand_there_where_they_differ_and_else_one():
    sample, key, one = np.arange(4), np.arange(4), np.array([0, 1, 9, 0])
    rows = {"a": row(sample, key, one), "b": row(sample, key, one + 1)}
    text = passes_text(rows, 2)
    assert "| a                       |  50.00 |  75.00 |      50.00 |      75.00 |" in text
    assert "pass@k and recall@k are pass@k" in text and "position1_pass@1" not in text.splitlines()[0]
    rows["b"] = row(np.array([0, 0, 1, 2]), key, one)
    text = passes_text(rows, 2)
    assert text.splitlines()[0].count("position1_pass") == 4 and "are pass@k" not in text


def row(sample, key, place):
    return {
        name: value
        for level in ("", "pid_")
        for name, value in passes(sample, key, place, (1, 2), f"openonerec_{level}").items()
    }
