"""--split_data: rows somebody else split become the same windows, targets and figures."""

import csv

import numpy as np
import pytest

from pixelrec_train.data.given_split import read_split
from pixelrec_train.data.interactions import Interactions
from pixelrec_train.data.protocols import leave_last_two_out
from pixelrec_train.errors import InputError

ITEMS = [f"i{n}" for n in range(40)]


def some_interactions(seed=0, users=30):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 25, size=users)
    items = np.concatenate([rng.permutation(40)[:n] for n in lengths]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    none = np.array([], np.int64)
    return Interactions(items, offsets, none, none, ITEMS, {}, "")


def rows_of(data, longest=10):
    """What somebody who leaves the last two out would write down: every item and what came before it."""
    for user in range(data.num_users):
        own = [ITEMS[i] for i in data.items[data.offsets[user] : data.offsets[user + 1]]]
        for n in range(1, len(own)):
            part = {len(own) - 1: "test", len(own) - 2: "valid"}.get(n, "train")
            yield part, f"u{user}", own[n], " ".join(own[max(n - longest, 0) : n])


def write(path, rows, header=("split", "user_id", "item_id", "history")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def windows_of(split):
    return sorted(split.taken.items[start:end].tolist() for start, end in split.windows)


def targets_of(held_out):
    return {tuple(held_out.history(e)[-10:]) + (held_out.target[e],) for e in range(len(held_out))}


@pytest.mark.parametrize("longest", [3, 10])
def test_rows_of_the_last_two_are_the_split_that_leaves_the_last_two_out(tmp_path, longest):
    data = some_interactions()
    path = write(tmp_path / "rows.csv", rows_of(data, longest))
    for size, newest_only in ((5, False), (5, True), (50, False)):
        given = read_split(path, data, size, newest_only)
        expected = leave_last_two_out(data, size, newest_only)
        assert windows_of(given) == windows_of(expected)
        assert given.train_counts.tolist() == expected.train_counts.tolist()
        pairs = [sorted(zip(*(part.tolist() for part in s.taken.pairs()), strict=True)) for s in (given,)]
        assert len(pairs[0]) == sum(max(n - 2, 0) for n in np.diff(data.offsets) if n - 2 > 1)
        for name in ("valid", "test"):
            ours, theirs = targets_of(getattr(given, name)), targets_of(getattr(expected, name))
            assert {t[-longest - 1 :] for t in theirs} == ours


def test_a_row_that_does_not_go_on_begins_a_sequence_of_its_own(tmp_path):
    rows = [
        ("train", "a", "i3", "i1 i2"),
        ("train", "a", "i4", "i2 i3"),  # goes on, its history cut
        ("train", "b", "i9", "i8"),
        ("train", "a", "i7", "i5 i6"),  # a gap
        ("train", "a", "i8", "i5 i6 i7"),
        ("train", "b", "i7", "i8 i9 i5 i6"),  # rows between are missing, the history has them
        ("train", "c", "i1", ""),
        ("valid", "a", "i1", "i7 i8"),
        ("valid", "c", "i1", ""),  # no history
        ("test", "c", "i2", "i1"),
    ]
    split = read_split(write(tmp_path / "rows.csv", rows), some_interactions(), 11)
    assert windows_of(split) == [[1, 2, 3, 4], [5, 6, 7, 8], [8, 9, 5, 6, 7]]
    assert [split.valid.history(e).tolist() for e in range(len(split.valid))] == [[7, 8]]
    assert (split.test.history(0).tolist(), split.test.target.tolist()) == ([1], [2])
    assert split.taken.users.tolist() == [0, 0, 1, 2] and split.taken.pairs()[1][-1] == 1
    assert split.train_counts[[1, 5, 8]].tolist() == [1, 2, 2]
    assert "rows.csv" in split.origin


GOOD = [("train", "a", "i3", "i1"), ("valid", "a", "i4", "i1 i3"), ("test", "a", "i5", "i3 i4")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*GOOD, ("dev", "a", "i3", "i1")], "row 4: split is 'dev'"),
        ([*GOOD, ("test", "a", "x", "i1")], "row 4: item 'x' is not in --interaction_data"),
        ([*GOOD, ("test", "a", "i1", "i1,i2")], "item 'i1,i2' is not in.*spaces between"),
        (GOOD[:2], "holds no row of test"),
        ([*GOOD[:1], ("valid", "a", "i3", ""), GOOD[2]], "holds no row of valid with a history"),
        ([("train", "a", "i3", ""), *GOOD[1:]], "nothing to learn"),
        ([], "holds no row of train"),
    ],
)
def test_what_is_wrong_with_the_rows_is_said(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_split(write(tmp_path / "rows.csv", rows), some_interactions(), 11)


def test_columns_go_by_their_names(tmp_path):
    turned = [(history, item, part, user) for part, user, item, history in GOOD]
    path = write(tmp_path / "rows.csv", turned, ("history", "item_id", "split", "user_id"))
    assert read_split(path, some_interactions(), 11).test.target.tolist() == [5]
    path = write(tmp_path / "short.csv", GOOD, ("part", "user_id", "item_id", "history"))
    with pytest.raises(InputError, match="split"):
        read_split(path, some_interactions(), 11)
    with pytest.raises(InputError, match="--split_data"):
        read_split(tmp_path / "none.csv", some_interactions(), 11)
