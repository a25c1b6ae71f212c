"""Tables as people bring them: each file of fixtures/tables, and each form of a file."""

import bz2
import csv
import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import slow_tables
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.config import DataFlags, TableFlags, TextFlags
from pixelrec_train.data.inputs import read_interactions, split_of
from pixelrec_train.data.interaction_table import to_seconds
from pixelrec_train.data.item_fields import plain_text, read_fields
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError

FOLDER = ROOT / "tests/fixtures/tables"
ITEMS = [str(n) for n in range(1000, 1024)]


@pytest.fixture
def data(tmp_path):
    """name of a fixture, flags -> Interactions"""

    def read(name, **flags):
        return read_interactions(
            DataFlags(interaction_data=str(FOLDER / name), cache_dir=str(tmp_path), **flags)
        )

    return read


def titles(name, item_ids=ITEMS, **flags):
    flags = TextFlags(text_data=str(FOLDER / name), text_keys=("title",), **flags)
    fields, facts = read_fields(item_ids, flags)
    return [values and values[0] for values in fields], facts


def histories(read):
    ends = read.offsets[1:-1]
    return {
        user: [read.item_ids[i] for i in row]
        for user, row in zip(read.user_ids, np.split(read.items, ends), strict=True)
    }


@pytest.mark.parametrize("name, encoding", [("gb18030", "gb18030"), ("utf16", "utf-16"), ("plain", None)])
def test_the_encoding_that_decodes_the_whole_file_is_found_and_said(name, encoding):
    read, facts = titles(f"{name}.text.csv")
    assert read[0] == "红茶0 第0号" and len(set(read)) == 24
    assert facts["notes"] == ([f"--text_data: read as {encoding}"] if encoding else [])


def test_latin1_is_what_is_left_and_a_told_encoding_goes_before_all():
    assert titles("latin1.text.csv")[0][0] == "Café crème n° 0"
    assert titles("gb18030.text.csv", encoding="gbk")[0][0] == "红茶0 第0号"
    with pytest.raises(InputError, match="is not utf-8 .byte .. in line 2.*--encoding"):
        titles("gb18030.text.csv", encoding="utf-8")
    with pytest.raises(InputError, match="--encoding klingon is not known"):
        titles("gb18030.text.csv", encoding="klingon")


@pytest.mark.parametrize(
    "interactions, texts, sentence",
    [
        (
            "float_ids",
            "plain",
            r"any of the .*'10\d\d\.0', it has '10\d\d'.*23 would match but for the \.0.*spreadsheet",
        ),
        (
            "plain",
            "zeros_kept",
            r"any of the .*'10\d\d', it has '000000.*23 would match but for leading zeros",
        ),
        (
            "half_float_ids",
            "plain",
            r"for \d+ \(\d+%\) of the .*\.0', it has.*but for the \.0.*--allow_missing_text",
        ),
    ],
)
def test_ids_spelled_otherwise_stop_with_one_of_each_side(data, interactions, texts, sentence):
    item_ids = data(f"{interactions}.inter.csv").item_ids
    with pytest.raises(InputError, match=sentence):
        titles(f"{texts}.text.csv", item_ids)


def test_missing_texts_can_be_allowed_but_not_all_of_them(data):
    item_ids = data("half_float_ids.inter.csv").item_ids
    assert None in titles("plain.text.csv", item_ids, allow_missing_text=True)[0]
    with pytest.raises(InputError, match="any of the"):
        titles("plain.text.csv", data("float_ids.inter.csv").item_ids, allow_missing_text=True)


def test_blanks_around_ids_are_left_out_and_counted(data):
    plain, padded = data("plain.inter.csv"), data("space_ids.inter.csv")
    assert histories(padded) == histories(plain) and padded.item_ids == plain.item_ids
    assert padded.notes == ["blanks around 72 item ids are left out"] and plain.notes == []


@pytest.mark.parametrize("interactions, texts", [("zero_ids", "zeros_kept"), ("big_ids", "big_ids")])
def test_an_id_is_never_a_number(data, interactions, texts):
    item_ids = data(f"{interactions}.inter.csv").item_ids
    assert titles(f"{texts}.text.csv", item_ids)[1]["without_text"] == 0
    assert all(len(item_id) in (10, 16) for item_id in item_ids) and len(set(item_ids)) == len(item_ids)


def split(read, flags=None):
    return split_of(read, flags or DataFlags(interaction_data="x"), 11)


def test_a_session_is_a_history_and_its_target(data):
    read = data("sessions.inter")
    assert "12 sessions" in read.summary() and read.notes == ["--interaction_data: user_id is session_id"]
    made = split(read)
    assert len(made.windows) == 10 and len(made.valid) == len(made.test) == 1
    names = [[read.item_ids[i] for i in part.history(0)] for part in (made.valid, made.test)]
    assert names == [["1020", "1009", "1013", "1016", "1012"], ["1011", "1017", "1018", "1013", "1018"]]
    assert read.item_ids[made.test.target[0]] == "1007" and made.train_counts.sum() == 60


def test_rows_split_beforehand_have_the_tables_before_as_their_history(data, tmp_path):
    held_out = {f"{part}_data": str(FOLDER / f"presplit.{part}.csv") for part in ("valid", "test")}
    read = data("presplit.train.csv", **held_out)
    made = split(read, DataFlags(interaction_data="x", **held_out))
    frames = {
        part: pd.read_csv(FOLDER / f"presplit.{part}.csv", dtype=str) for part in ("train", "valid", "test")
    }
    before = [row for row in frames["train"].itertuples()]
    later = 0
    for part in ("valid", "test"):
        found, expected = getattr(made, part), set()
        for target in frames[part].itertuples():
            own = [row for row in before if row.user_id == target.user_id]
            known = sorted(
                (row for row in own if row.timestamp <= target.timestamp), key=lambda row: row.timestamp
            )
            expected.add((target.user_id, *(row.item_id for row in known), target.item_id))
            later += len(own) - len(known)
        assert expected == {
            (read.user_ids[found.users[e]], *(read.item_ids[i] for i in (*found.history(e), found.target[e])))
            for e in range(len(found))
        }
        before += frames[part].itertuples()
    trained = [
        [read.item_ids[i] for i in made.taken.items[a:b]]
        for a, b in zip(made.taken.start, made.taken.end, strict=True)
    ]
    of_users = frames["train"].groupby("user_id", sort=False).item_id
    assert dict(zip(read.user_ids, trained, strict=True)) == {user: list(items) for user, items in of_users}
    assert "presplit.valid.csv and presplit.test.csv" in made.origin
    assert later == 7 and f"left out of histories, as later than their target: {later} rows" in made.origin
    with pytest.raises(InputError, match="go together"):
        DataFlags(interaction_data="x", valid_data="y")


PLAIN = (FOLDER / "plain.inter.csv").read_bytes()


def zipped(text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("plain.csv", text)
    return file.getvalue()


FORMS = {
    "gzip": gzip.compress(PLAIN),
    "bzip2": bz2.compress(PLAIN),
    "zip": zipped(PLAIN),
    "zstd": pa.compress(PLAIN, "zstd", asbytes=True) if pa.Codec.is_available("zstd") else b"",
    "tabs": PLAIN.replace(b",", b"\t"),
    "semicolons": PLAIN.replace(b",", b";"),
    "bars": PLAIN.replace(b",", b"|"),
    "recbole": PLAIN.replace(b",", b"\t").replace(
        b"user_id\titem_id\ttimestamp", b"user_id:token\titem_id:token\ttimestamp:float"
    ),
    "movielens": PLAIN.replace(b"user_id,item_id", b"userId,movieId"),
    "amazon": PLAIN.replace(b"user_id,item_id,timestamp", b"reviewerID,asin,unixReviewTime"),
    "quoted": PLAIN.replace(b"u0,", b'"u0",'),
    "utf-16": PLAIN.decode().encode("utf-16"),
    "jsonl": "\n".join(map(json.dumps, csv.DictReader(io.StringIO(PLAIN.decode())))).encode(),
    "numbers in jsonl": b"\n".join(
        b'{"user_id": "%s", "item_id": %s, "timestamp": %s}' % tuple(row.split(b","))
        for row in PLAIN.split()[1:]
    ),
}


def parquet(frame):
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


FORMS["parquet"] = parquet(pd.read_csv(io.BytesIO(PLAIN)))
FORMS["parquet in gzip"] = gzip.compress(FORMS["parquet"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_is_read_as_the_plain_one(form, data, tmp_path):
    path = tmp_path / "any.name"
    path.write_bytes(FORMS[form])
    read = read_interactions(DataFlags(interaction_data=str(path), cache_dir=str(tmp_path)))
    assert histories(read) == histories(data("plain.inter.csv"))


def test_without_a_time_the_order_of_rows_is_that_of_time_and_columns_can_be_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("who,what,note\nu,b,1\nu,a,2\n")
    flags = dict(user_column="who", item_column="what", cache_dir=str(tmp_path))
    read = read_interactions(DataFlags(interaction_data=str(path), **flags))
    assert histories(read) == {"u": ["b", "a"]}
    assert "--interaction_data: no time column: the order of rows is the order of time" in read.notes
    read = read_interactions(DataFlags(interaction_data=str(path), time_column="note", **flags))
    assert read.notes == ["--interaction_data: item_id is what, user_id is who, timestamp is note"]
    with pytest.raises(InputError, match="no column when"):
        read_interactions(DataFlags(interaction_data=str(path), time_column="when", **flags))


def test_times_may_be_dates():
    texts = [
        "2018-10-02 11:03:00",
        "2018-10-02T11:03:00Z",
        "2018-10-02T13:03:00+02:00",
        "2018-10-02",
        "1538478180",
        "x",
    ]
    day = 1538438400
    np.testing.assert_allclose(to_seconds(pa.array(texts)), [day + 39780] * 3 + [day, day + 39780, np.nan])


def test_lists_are_joined_and_html_is_text(tmp_path):
    path = tmp_path / "items.parquet"
    path.write_bytes(parquet(pd.DataFrame({"parent_asin": ["1"], "features": [["a", "b &amp; c"]]})))
    flags = TextFlags(text_data=str(path), text_keys=("features",))
    assert read_fields(["1"], flags)[0] == [("a b & c",)]
    assert plain_text("['it\\'s', \"two\"]") == "it's two" and plain_text("[]") == ""
    for text in ("['a', open('x')]", "[5]", "[UPGRADED] pan", "['a'", "[" * 5000):
        assert plain_text(text) == text


@pytest.mark.parametrize(
    "content, words",
    [
        (gzip.compress(PLAIN)[:40], "is damaged"),
        (b"PAR1 and no more", "is damaged"),
        (zipped(PLAIN)[:60], "is damaged"),
        (b'{"user_id": 1}\nno', "no JSON object in line 2"),
        (b"\x89PNG\r\n", "is a PNG file"),
    ],
    ids=("half a gzip", "half a Parquet", "half a zip", "half a JSON", "a PNG"),  # the same in every worker
)
def test_what_is_no_table_is_said(tmp_path, content, words):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        list(open_table(path).rows(["user_id"]))


FIELDS = st.sampled_from(
    ["a", "007", "NA", "null", "", " b ", "c,d", "e\r\nf", "g\nh", 'q"q', "拉", "1e5", "x" * 50]
)


@given(
    st.lists(st.lists(FIELDS, min_size=1, max_size=4), max_size=30), st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["", "\n", 'x"y,1\n', '"open', "a,b,c,d,e\n", "a,b,c,,\n"]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_csv_is_read_as_its_slow_twin_reads_it(rows, end_of_line, quoting, mark, last):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(mark)
            csv.writer(file, lineterminator=end_of_line, quoting=quoting).writerows(
                [["p", "q", "r", "s"], *rows]
            )
            file.write(last)
        try:
            slow = list(slow_tables.read_rows(path, ["s", "p", "q"]))
        except InputError as error:
            if last != "a,b,c,,\n":  # one field too many, but nothing in it: harmless now
                with pytest.raises(InputError, match="well-formed"):
                    list(open_table(path).rows(["s", "p", "q"]))
                assert "well-formed" in str(error)
            return
        assert list(open_table(path).rows(["s", "p", "q"])) == slow


def test_flags_of_tables_stand_in_one_group():
    assert {"user_column", "item_column", "time_column", "encoding"} <= TableFlags.__dataclass_fields__.keys()


def test_held_out_rows_that_stand_in_the_training_table_too_are_noticed(tmp_path):
    """Else a target is among the items seen, and every figure 0 without a word."""
    whole = b"".join((FOLDER / f"presplit.{part}.csv").read_bytes().split(b"\n", part != "train")[-1]
                     for part in ("train", "valid", "test"))  # fmt: skip
    (tmp_path / "whole.csv").write_bytes(whole)
    flags = DataFlags(
        interaction_data=str(tmp_path / "whole.csv"), cache_dir=str(tmp_path / "cache"),
        valid_data=str(FOLDER / "presplit.valid.csv"), test_data=str(FOLDER / "presplit.test.csv"),
    )  # fmt: skip
    with pytest.raises(
        InputError, match="100% of the rows of --valid_data name an item that their user took"
    ):
        split_of(read_interactions(flags), flags, 6)


def test_one_column_cannot_be_two_things(tmp_path):
    flags = DataFlags(
        interaction_data=str(FOLDER / "plain.inter.csv"), cache_dir=str(tmp_path), user_column="item_id"
    )
    with pytest.raises(InputError, match="the column item_id cannot be both .*--user_column"):
        read_interactions(flags)
