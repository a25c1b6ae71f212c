"""Checking a dataset: planted problems are found in their lines, and sound data have none."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import as_flags
from hypothesis import given
from hypothesis import strategies as st

from pixelrec_train.commands import check_data
from pixelrec_train.config import TableFlags
from pixelrec_train.data import interactions
from pixelrec_train.data.checks.bars import histogram
from pixelrec_train.data.checks.odd_interactions import Rows, about_repeats, check_interactions
from pixelrec_train.data.checks.odd_texts import check_texts
from pixelrec_train.data.checks.remarks import LinedRows
from pixelrec_train.data.interaction_table import to_seconds

# A BOM, CRLF, a quoted line break and a blank line; the number is the line as an editor counts it.
PLANTED = [
    "\ufeffitem_id,user_id,timestamp,note",  # 1
    'i1,u1,1600000000,"two\r\nlines"',  # 2, 3
    "i2,u1,1600000100,x",  # 4
    "",  # 5
    "i2,u1,1600000100,x",  # 6: line 4 again
    "i2,u1,1600000100.5,y",  # 7: in the same second
    ",u1,1600000200,",  # 8
    "i3,  ,1600000200,",  # 9
    "i3,u1,yesterday,",  # 10
    "i3,u1,1600000300",  # 11: no note
    "i3,u2,1600000400000,",  # 12: milliseconds
    "i4,u2,86400,",  # 13: 1970
    "i4,u2,4000000000,",  # 14: 2096
    " i1,u2,1600000500,",  # 15: i1 with a space
    'I1,u2,1600000600,"',  # 16, 17: case
    '"',
    "i5,007,1600000700,",  # 18
    "i5,7,1600000800,",  # 19: leading zeros
    "i5,u3,1600000900,",  # 20
    "i6,u3,1600000900,",  # 21
    "i6,u4,1600001000,",  # 22
    "i5,u4,1600001100,",  # 23
    "i4,u4,1600001200,",  # 24
    "007,u2,1600001300,",  # 25
    "7 ,u2,1600001400,",  # 26: white space and zeros at once
]


@pytest.fixture
def planted(tmp_path):
    path = tmp_path / "planted.csv"
    path.write_bytes("\r\n".join(PLANTED).encode())
    return path


def where(remarks):
    return {str(remark): list(remark.examples) for remark in remarks}


def test_every_planted_problem_of_interactions_is_found_in_its_line(planted):
    checked = check_interactions(planted)
    assert where(checked.remarks) == {
        "1 row with fewer fields than the header, the rest read as empty": ["11 (3 of 4)"],
        "1 row without item_id, left out": ["8"],
        "1 row without user_id, left out": ["9"],
        "1 row with an unreadable timestamp, left out": ["10 ('yesterday')"],
        "1 exact duplicate of an earlier row, kept": ["6 (= 4)"],
        "1 row with the user and the item of another one in the same second, kept": ["7 (as 4)"],
        "1 timestamp before 1990": ["13 (1970-01-02)"],
        "1 timestamp in the future": ["14 (2096-10-02)"],
        "1 timestamp in milliseconds while most are in seconds, each read by its size": ["12"],
        "2 rows with blanks around an id, left out": ["15", "26"],
        "5 rows (26.3%) that share user and second with another: the file's order decides": [
            "4",
            "6",
            "7",
            "20",
            "21",
        ],
        "1 item id that differs from another only by case": ["'I1' in line 16 and 'i1' in 2"],
        "1 item id that differs from another only by leading zeros": ["'7' in line 26 and '007' in 25"],
        "1 user id that differs from another only by leading zeros": ["'7' in line 19 and '007' in 18"],
        "2 users with 1 interaction, used nowhere": ["'007' (line 18)", "'7' (line 19)"],
        "1 user with 2 interactions, used in the test split alone": ["'u3' (line 20)"],
        "1 user with 3 interactions, used in validation and test but not trained on": ["'u4' (line 22)"],
    }
    assert checked.rows == len(list(LinedRows(planted))) == 22
    assert checked.days == ("2020-09-13", "2020-09-13")
    assert [checked.line_of_item(i) for i in ("i1", "i3", "7")] == [2, 11, 26]  # of rows that are used


def test_what_is_left_out_is_what_the_loader_leaves_out(planted, tmp_path):
    read = interactions.read([planted], TableFlags(cache_dir=str(tmp_path / "cache")))
    assert read.unusable == {
        "without item_id": 1, "without user_id": 1, "with an unreadable timestamp": 1
    }  # fmt: skip


def test_only_the_first_few_lines_are_shown_and_the_rest_counted(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("item_id,user_id,timestamp\n" + ",u,1600000000\n" * 1000 + "i,u,1600000000\n")
    remark = check_interactions(path).remarks[0]
    assert str(remark) == "1,000 rows without item_id, left out"
    assert remark.where() == "lines 2, 3, 4, 5, 6, …"
    assert remark.where(width=15) == "lines 2, 3, …"


def test_rows_with_too_many_fields_are_listed_unless_all_end_in_a_comma(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text('item_id,user_id,timestamp\n"a\nb",u,1\nb,u,1,2\nc,u,3\nd,u,3,4,5\n')
    rows = LinedRows(path)
    assert [line for line, _ in rows] == [2, 4, 5, 6]
    assert where(rows.refused()) == {
        "2 rows with more fields than the header, so the file is refused": ["4 (4 of 3)", "6 (5 of 3)"]
    }
    path.write_text("item_id,user_id,timestamp\na,u,1,\nb,u,1,\n")
    rows = LinedRows(path)
    assert len(list(rows)) == 2 and not rows.remarks()


def test_timestamps_that_are_an_order_are_said_to_be_one(tmp_path):
    path = tmp_path / "order.csv"
    path.write_text("item_id,user_id,timestamp\n" + "".join(f"i{n},u,{n}\n" for n in range(9)))
    checked = check_interactions(path)
    assert list(where(checked.remarks)) == [
        "9 timestamps before 1990 (from 0 to 8), so they are an order and no dates"
    ]
    assert checked.days is None


def test_a_file_without_rows_has_no_remarks(tmp_path):
    path = tmp_path / "none.csv"
    path.write_text("item_id,user_id,timestamp\n")
    assert check_interactions(path).remarks == []


row = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.integers(0, 1)
)


@given(st.lists(row, max_size=12))
def test_repeated_rows_are_those_of_the_slow_way(rows):
    users, items, times, notes = (np.array(column) for column in zip(*rows, strict=True)) if rows else (
        np.zeros(0, int),) * 4  # fmt: skip
    marks = np.array([hash(r) for r in rows], np.int64)
    found = list(about_repeats(Rows(np.arange(len(rows)), marks, times, items, users)))
    exact = [i for i, r in enumerate(rows) if r in rows[:i]]
    pairs = {}
    for i, (user, item, *_) in enumerate(rows):
        pairs.setdefault((user, item), []).append(i)
    near = 0
    for same in pairs.values():
        order = sorted(same, key=lambda i: (times[i], i))
        near += sum(
            times[b] - times[a] < 1 and b not in exact for a, b in zip(order, order[1:], strict=False)
        )
    expected = [n for n in (len(exact), near) if n]
    assert [remark.count for remark in found] == expected


ITEMS = [
    "item_id,title,tag",  # 1
    'i1,"a ""quoted""',  # 2
    'title",x',  # 3
    "i2,,",  # 4: nothing
    "i3,same,x",  # 5
    "i4,same,x",  # 6
    ",nobody,x",  # 7
    "i1,again,x",  # 8
    "i9,stranger,x",  # 9
    "I5,in another case,x",  # 10
    "i6,short",  # 11
]


def test_every_planted_problem_of_texts_is_found_in_its_line(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("\n".join(ITEMS))
    item_ids = ["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i 2"]
    rows, remarks = check_texts(
        path, item_ids, ("title", "tag"), {"i5": 12, "i7": 34, "i 2": 5}.get, {}, None
    )
    assert rows == 9
    assert where(remarks) == {
        "1 row with fewer fields than the header, the rest read as empty": ["11 (2 of 3)"],
        "1 row without item_id, not read": ["7"],
        "1 row of an item that has one already, not read": ["8 (first in 2)"],
        "3 items in no row, read as empty texts": [
            "'i5' (line 12 of the interactions)",
            "'i7' (line 34 of the interactions)",
            "'i 2' (line 5 of the interactions)",
        ],
        "2 items of these would be there but for white space, case, leading zeros or .0": [
            "'i5' is 'I5' in line 10", "'i 2' is 'i2' in line 4"
        ],
        "1 item with nothing in title,tag": ["4"],
        "1 item with the title,tag of another, which no model can tell apart": ["6 (as 5: 'same')"],
        "2 rows of an item that nobody took, not read": ["9", "10"],
    }  # fmt: skip


@given(st.lists(st.integers(0, 5000), min_size=1), st.booleans())
def test_a_histogram_counts_every_value_once(values, growing):
    title, *bars = histogram("x", values, growing)
    assert sum(int(re.split(r"\s+", bar.strip())[1].replace(",", "")) for bar in bars) == len(values)
    assert len(bars) <= 12 and f"most {max(values):,}" in title
    assert max(bar.count("█") for bar in bars) == 22


def check(config, capsys, *more, **changes):
    """What the command prints for a TrainConfig's flags."""
    given = {k: v for k, v in vars(replace(config, **changes)).items() if k != "dry_run"}
    check_data.main([*as_flags(given), *more])
    return capsys.readouterr().out


def test_a_whole_report_with_towers(demo_config, capsys):
    text = check(demo_config, capsys, "--dry_run", "2", max_text_length=8)
    assert re.search(r"^data: 120 users, .* interactions; 2023-\d\d-\d\d to 2024-", text, re.M)
    assert re.search(r"^split: \d+ training windows, 120 validation and 120 test targets", text, re.M)
    assert re.search(r"^cut: \d\d\.\d% of the texts are longer than --max_text_length 8; ", text, re.M)
    assert "ok     nothing odd" in text
    for title in (
        "interactions per user",
        "interactions per item",
        "items per training window",
        "tokens per",
    ):
        assert title in text
    assert "over 2 ranks" in text and "ZeRO-2, fp32" in text
    assert re.search(r"^activations: about [\d.]+ MiB at their peak", text, re.M)
    assert re.search(r"^epoch: \d+ micro-batches x [\d.e-]+ s = \S+ \([\d,]+ tokens/s\)$", text, re.M)
    assert "measured on 5 micro-batches here, one rank, without optimizer and communication" in text


def test_a_frozen_item_llm_reads_the_catalogue_once(demo_config, capsys):
    text = check(demo_config, capsys, freeze_item_llm=True, item_emb_token_n=0)
    assert "read once, before training, in" in text


def test_a_name_is_two_files_and_without_towers_characters_are_counted(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, file in (("dataset", "interactions.csv"), ("information", "items.csv")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "site.csv").write_bytes((demo / file).read_bytes())
    check_data.main(["--max_seq_length", "6", "site"])
    text = capsys.readouterr().out
    assert "\ndataset/site.csv, " in text and "\ninformation/site.csv, " in text
    assert "characters per item" in text and "--item_model_dir" in text and "tokens per" not in text
    assert not (tmp_path / "results/pixelrec").exists()


def test_what_the_loader_refuses_is_refused_in_its_words(tmp_path, capsys):
    path = tmp_path / "wide.csv"
    path.write_text("item_id,user_id,timestamp\na,u,1\nb,u,1,2\nc,u,3\nd,u,3,4,5\n")
    with pytest.raises(SystemExit) as stop:
        check_data.main(["--interaction_data", str(path), "--cache_dir", str(tmp_path / "cache")])
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert "lines 3 (4 of 3), 5 (5 of 3)" in said.out
    assert said.err.count("\n") == 1 and "Expected 3 fields in line 3, saw 4" in said.err


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "name a dataset"),
        (("--interaction_data", "no.csv"), "no.csv does not exist"),
        (("demo", "--max_seq_lenth", "3"), "Did you mean --max_seq_length?"),
        (("demo", "twice"), "unknown argument 'twice'"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        check_data.main(list(flags))
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_help_shows_the_name_and_the_flags_of_training(capsys):
    with pytest.raises(SystemExit) as stop:
        check_data.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for words in ("DATASET", "--interaction_data", "--max_text_length", "default: 256", "Exit status 0"):
        assert words in text


def test_units_of_timestamps_are_told_by_their_size():
    import pyarrow as pa

    texts = ["1600000000", "1600000000000", " 1.6e15", "1600000000000000000", "0", "x"]
    seconds = to_seconds(pa.array(texts))
    np.testing.assert_allclose(seconds, [1.6e9, 1.6e9, 1.6e9, 1.6e9, 0, np.nan])
