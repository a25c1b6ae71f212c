"""From CSV rows to histories, windows and splits."""

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.config import TableFlags
from pixelrec_train.data import interactions, tables
from pixelrec_train.data.ids import Ids
from pixelrec_train.data.interaction_table import number_rows
from pixelrec_train.data.interactions import Interactions, cut_windows
from pixelrec_train.data.protocols import leave_last_two_out
from pixelrec_train.errors import InputError


def read_text(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    return interactions.read([path], TableFlags(cache_dir=str(tmp_path / "cache")))


def made(offsets):
    """Interactions in which no item comes twice."""
    none = np.array([], np.int64)
    items = np.arange(offsets[-1], dtype=np.int32)
    return Interactions(items, offsets, none, none, [str(i) for i in items], {}, "")


def history(data, user):
    u = data.user_ids.index(user)
    return [data.item_ids[i] for i in data.items[data.offsets[u] : data.offsets[u + 1]]]


def test_columns_are_found_by_name_in_any_order(tmp_path):
    data = read_text(tmp_path, "timestamp,extra,user_id,item_id\n2,x,u,b\n1,x,u,a\n")
    assert history(data, "u") == ["a", "b"]


def test_ties_keep_the_files_order(tmp_path):
    rows = [f"i{n},u{n % 3},{n // 30}\n" for n in range(90)]
    data = read_text(tmp_path, "item_id,user_id,timestamp\n" + "".join(rows))
    for user in range(3):
        assert history(data, f"u{user}") == [f"i{n}" for n in range(90) if n % 3 == user]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("\ufeffitem_id,user_id,timestamp\na,u,1\n", ["a"]),
        ("item_id,user_id,timestamp\r\na,u,1\r\nb,u,2\r\n", ["a", "b"]),
        ('item_id,user_id,timestamp\n"a\nb",u,1\n"c,""d""",u,2\n', ["a\nb", 'c,"d"']),
        ("item_id,user_id,timestamp\n007,u,1\n7,u,2\n7.0,u,3\n", ["007", "7", "7.0"]),
        ("item_id,user_id,timestamp\nnan,u,1\nNA,u,2\nnull,u,3\n", ["nan", "NA", "null"]),
        ("item_id,user_id,timestamp\nb,u,2.5\na,u,2.25\n", ["a", "b"]),
        (
            "item_id,user_id,timestamp\nb,u,1600000001\na,u,1600000000000\n",
            ["a", "b"],
        ),  # s and ms in one file
        (
            "item_id,user_id,timestamp\nb,u,1600000000000000001\na,u,1600000000\n",
            ["b", "a"],
        ),  # ns: a tie in s
        ("item_id,user_id,timestamp\n拉面🍜,u,1\n\nשלום,u,2\n", ["拉面🍜", "שלום"]),
        (" item_id , user_id ,timestamp\na,u,1\n", ["a"]),
    ],
)
def test_real_world_csv_is_read_as_meant(tmp_path, text, expected):
    assert history(read_text(tmp_path, text), "u") == expected


def test_rows_that_cannot_be_used_are_counted_and_reported(tmp_path):
    data = read_text(tmp_path, "item_id,user_id,timestamp\n,u,1\na,,2\nb,u,soon\nc,u,\nd,u,5\n")
    assert data.unusable == {"without item_id": 1, "without user_id": 1, "with an unreadable timestamp": 2}
    assert history(data, "u") == ["d"]
    assert "2 rows with an unreadable timestamp" in data.summary()


@pytest.mark.parametrize(
    "text, words",
    [
        ("item_id,who,timestamp\na,u,1\n", r"data\.csv has no column user_id.*item_id, who, timestamp"),
        ("item_id,item_id,user_id,timestamp\na,a,u,1\n", "item_id 2 times"),
        ("", "is empty"),
        ("item_id,user_id,timestamp\n", "no usable row"),
        ("item_id,user_id,timestamp\na,u,1,x\nb,u,2\n", "Expected 3 fields in line 2, saw 4.*double quotes"),
        ("item_id,user_id,timestamp\nb,u,2\na,u,1,x\n", "Expected 3 fields in line 3, saw 4.*double quotes"),
        ('item_id,user_id,timestamp\na,u,"1\n', "well-formed.*line 2"),
        ('item_id,user_id,timestamp\na"b,u,1\nc,"u,2\n', "well-formed.*line 3"),  # an even number of quotes
    ],
)
def test_a_bad_file_is_one_clear_sentence(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_text(tmp_path, text)


def test_another_encoding_is_read_and_named(tmp_path):
    data = read_text(tmp_path, "item_id,user_id,timestamp\né,u,1\n", encoding="latin1")
    assert history(data, "u") == ["é"] and data.notes == ["--interaction_data: read as latin-1"]


def test_a_changed_file_is_read_again(tmp_path):
    read_text(tmp_path, "item_id,user_id,timestamp\na,u,1\n")
    assert history(read_text(tmp_path, "item_id,user_id,timestamp\nb,u,1\n"), "u") == ["b"]


IDS = st.sampled_from(["a", "b", "c", "007", "NA", "", " ", "\u3000", "c,d", "e\r\nf", 'q"q', "拉", "a" * 30])
TIMES = st.sampled_from(
    [
        "1600000000",
        "1600000001",
        "1600000000000",
        "1600000001000001",
        "1600000000000000001",
        "2.5",
        "1e3",
        "-4",
    ]
)
NO_TIMES = st.sampled_from(
    ["", " 7 ", "+3", "soon", "nan", "inf", "NA", "1_0", "0x10", "1e400", "１", "1,0", "--1"]
)
ROWS = st.lists(
    st.tuples(IDS, st.just("more"), TIMES | NO_TIMES, IDS).flatmap(
        lambda row: st.sampled_from([row, row, row, row[:3]])  # the last field may be missing
    ),
    max_size=40,
)


@given(
    ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_a_file_is_numbered_and_sorted_as_the_slow_way_does_it(rows, end_of_line, quoting, in_small_blocks):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if in_small_blocks:  # so that it changes from pyarrow to the csv module in the middle of the file
            patch.setattr(tables, "BLOCK", 128)
        path = Path(folder, "data.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator=end_of_line, quoting=quoting)
            writer.writerows([("item_id", "x", "timestamp", "user_id"), *rows])
        slow = slow_way(path)
        if not slow["items"]:
            with pytest.raises(InputError, match="no usable row"):
                number_rows([path], {}, None)
            return
        arrays, facts = number_rows([path], {}, None)
        ids = list(Ids(arrays["item_id_bytes"], arrays["item_id_offsets"]))
        found = {"items": arrays["items"].tolist(), "offsets": arrays["offsets"].tolist(), "item_ids": ids}
        assert found | facts == slow
        ends = arrays["user_id_ends"].tolist()
        text = arrays["user_id_bytes"].tobytes()
        names = [text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
        assert names == list(dict.fromkeys(user for _, user, _ in usable_rows(path)))


def slow_way(path):
    items, users, unusable = {}, {}, {}
    for item, user, _ in usable_rows(path, unusable):
        items.setdefault(item, len(items))
        users.setdefault(user, [])
    for item, user, _ in sorted(usable_rows(path), key=lambda row: row[2]):
        users[user].append(items[item])
    offsets = [sum(map(len, list(users.values())[:n])) for n in range(len(users) + 1)]
    return {
        "items": sum(users.values(), []), "offsets": offsets, "item_ids": list(items), "unusable": unusable,
        "notes": [],
    }  # fmt: skip


def usable_rows(path, unusable=None):
    """[(item_id, user_id, seconds)] in the file's order; why the others are none is counted in `unusable`."""
    unusable, rows = {} if unusable is None else unusable, []
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, restval=""):
            try:
                seconds = float(row["timestamp"].replace("_", "x").replace("１", "x"))
            except ValueError:
                seconds = float("nan")
            for unit in (1e9, 1e6, 1e3):
                if abs(seconds) > unit * 1e8:
                    seconds /= unit
                    break
            why = (
                "without item_id" if not row["item_id"].strip()
                else "without user_id" if not row["user_id"].strip()
                else "with an unreadable timestamp" if not abs(seconds) < float("inf")
                else None
            )  # fmt: skip
            if why:
                unusable[why] = unusable.get(why, 0) + 1
            else:
                rows.append((row["item_id"], row["user_id"], seconds))
    return rows


def test_a_well_formed_file_does_not_go_the_slow_way(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "malformed", None)
    rows = "".join(f'"i{n}, ""x""\n",u{n % 7},{n}\r\n' for n in range(2000))
    monkeypatch.setattr(tables, "BLOCK", 1 << 12)
    assert len(read_text(tmp_path, "\ufeffitem_id,user_id,timestamp\r\n" + rows).items) == 2000


def test_a_quoted_line_break_survives_at_the_edge_of_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 64)
    for shift in range(16):
        rows = "".join(f'"{n:02d}\r\nb",u,{n}\n' for n in range(10, 40))
        data = read_text(tmp_path, f"item_id,user_id,timestamp\n{'a' * shift},u,1\n{rows}")
        assert history(data, "u")[-30:] == [f"{n}\r\nb" for n in range(10, 40)]


def test_rows_may_be_short_or_all_end_in_a_comma(tmp_path):
    data = read_text(tmp_path, "item_id,user_id,timestamp,x\na,u,1\n \n\nb,u,2,y\n")
    assert history(data, "u") == ["a", "b"]
    data = read_text(tmp_path, "item_id,user_id,timestamp\na,u,1,\nb,u,2,\n")
    assert history(data, "u") == ["a", "b"]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(2, 7))
@settings(max_examples=200, deadline=None)
def test_windows_are_those_of_the_slow_way(lengths, size):
    stop = np.cumsum(lengths)
    start = stop - lengths
    slow = []
    for a, b in zip(start, stop, strict=True):
        items = list(range(a, b))
        if len(items) > size:
            items = items[len(items) % size :]
        slow += [items[i : i + size] for i in range(0, len(items), size)]
    fast = [list(range(a, b)) for a, b in cut_windows(start, stop, size)]
    assert fast == [w for w in slow if len(w) >= 2]


def test_only_the_newest_window_of_each_user_can_be_kept():
    start, stop = np.array([0, 10, 13]), np.array([10, 13, 14])
    assert cut_windows(start, stop, 4, newest_only=True).tolist() == [[6, 10], [10, 13]]


@given(st.lists(st.integers(1, 25), min_size=1, max_size=30), st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_no_held_out_item_is_in_training_and_histories_end_where_they_should(lengths, size):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    data = made(offsets)
    if max(lengths) < 4:
        with pytest.raises(InputError, match="4 interactions"):
            leave_last_two_out(data, size)
        return
    split = leave_last_two_out(data, size)
    trained = {i for start, end in split.windows for i in range(start, end)}
    assert np.array_equal(np.flatnonzero(split.train_counts), sorted(trained))
    for held_out, back in ((split.valid, 2), (split.test, 1)):
        for e, user in enumerate(held_out.users):
            assert held_out.target[e] == offsets[user + 1] - back
            assert list(held_out.history(e)) == list(range(offsets[user], offsets[user + 1] - back))
            assert held_out.target[e] not in trained
        assert len(held_out) == sum(n > back for n in lengths)


def test_short_users_take_part_where_they_can():
    data = made(np.array([0, 1, 3, 6, 10]))
    split = leave_last_two_out(data, 5)
    assert split.windows.tolist() == [[6, 8]]  # one item before the two held out teaches nothing
    assert split.valid.users.tolist() == [2, 3]
    assert split.test.users.tolist() == [1, 2, 3]
