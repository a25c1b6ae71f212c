"""Samples as they stand in Parquet files, and the ways to say which files."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pixelrec_train.data.samples import Sample, rows
from pixelrec_train.data.samples.cells import BOTH, NO_TEXT, ROLES, UNREAD_KEYS, Odd, Remarks, Row
from pixelrec_train.data.samples.files import Source, sources_of

CHAT = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
TEXT = {"type": "text", "text": "x"}
IMAGE = {"type": "image", "image": "i"}


def write(path, table, **how):
    """{column: values} as a Parquet file, with uuid and source where they are not given."""
    number = len(next(iter(table.values())))
    table = {"uuid": [f"u{n}" for n in range(number)], "source": ["s"] * number} | table
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(table), path, **how)
    return path


def read(path, remarks=None):
    """Samples and Problems of all row groups."""
    groups = range(len(rows.row_counts(path)))
    return [found for group in groups for _, found in rows.samples(path, group, remarks)]


CONTENTS = {
    "a text": ("x", "x"),
    "an object": (TEXT, "x"),
    "a list of objects": ([TEXT, TEXT | {"text": "y"}], "xy"),
    "objects and texts": ([TEXT, "y", TEXT], "xyx"),
    "no text among texts": ([IMAGE, TEXT, 5, None], "x"),
    "nothing but an image": ([IMAGE], ""),
    "an empty text": ("", ""),
    "Chinese": ("推荐", "推荐"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_content_is_one_text_in_whatever_form_it_is_written(tmp_path, name):
    content, expected = CONTENTS[name]
    path = write(tmp_path / "a.parquet", {"messages": [json.dumps([{"role": "user", "content": content}])]})
    assert read(path) == [Sample("u0", "s", ({"role": "user", "content": expected},), None)]


def pandas_rows(values):
    """As a DataFrame holds them: an object column of numpy arrays of dicts."""
    return pa.array(pd.Series([None if value is None else np.array(value, object) for value in values]))


FORMS = {
    "JSON text": lambda values: [None if v is None else json.dumps(v) for v in values],
    "long strings": lambda values: pa.array(FORMS["JSON text"](values), pa.large_string()),
    "words of a dictionary": lambda values: pa.array(FORMS["JSON text"](values)).dictionary_encode(),
    "bytes": lambda values: [None if v is None else json.dumps(v).encode() for v in values],
    "lists of objects": lambda values: values,
    "numpy rows": pandas_rows,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_column_may_be_written_in_any_form(tmp_path, form):
    parts = [{"role": "user", "content": [TEXT, IMAGE | {"text": None}, TEXT]}]
    for name, column in (
        ("messages", CHAT),
        ("message", CHAT),
        ("messages", parts),
        ("segments", [TEXT, IMAGE]),
    ):
        remarks = Remarks()
        path = write(tmp_path / "a.parquet", {name: FORMS[form]([column, None, column])})
        first, absent, last = read(path, remarks)
        if name == "segments":
            assert first[2:] == (None, ("x",))
        else:
            assert first[2:] == (tuple(CHAT if column is CHAT else [{"role": "user", "content": "xx"}]), None)
        assert first[2:] == last[2:] and (first.uuid, last.uuid) == ("u0", "u2")
        assert str(absent) == f"{path} row 2: it has neither messages nor segments."
        assert sum(count for count, _ in remarks.values()) == (0 if column is CHAT else 2)


def test_every_row_of_every_row_group_is_read_once_in_the_order_of_the_file(tmp_path, monkeypatch):
    """The original reads the first row group alone."""
    monkeypatch.setattr(rows, "MOST_ROWS", 7)
    texts = [f"text {n}" for n in range(100)]
    path = write(tmp_path / "a.parquet", {"segments": [json.dumps([t]) for t in texts]}, row_group_size=30)
    assert rows.row_counts(path) == [30, 30, 30, 10]
    found = [pair for group in range(4) for pair in rows.samples(path, group)]
    slow = parquet.read_table(path).to_pylist()
    assert [number for number, _ in found] == list(range(1, 101))
    assert [s for _, s in found] == [
        Sample(row["uuid"], row["source"], None, (*json.loads(row["segments"]),)) for row in slow
    ]


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "BATCH_BYTES", 1 << 20)
    noise = np.random.default_rng(0)
    texts = [json.dumps([noise.bytes(5000).hex()]) for _ in range(4000)]  # 40 MB, of which nothing repeats
    path = write(tmp_path / "a.parquet", {"segments": texts}, use_dictionary=False)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        assert sum(1 for _ in rows.samples(path, 0)) == 4000
    finally:
        pa.set_memory_pool(usual)
    assert 0 < pool.max_memory() < 12 << 20


def test_of_a_row_with_messages_and_segments_the_messages_are_taken(tmp_path):
    remarks = Remarks()
    table = {"messages": [json.dumps(CHAT), "[]", None], "segments": ['["x"]'] * 3}
    both, empty, none = read(write(tmp_path / "a.parquet", table), remarks)
    assert both.messages == tuple(CHAT) and both.segments is None
    assert empty.segments == none.segments == ("x",)
    assert remarks == {("s", BOTH): [1, f"{tmp_path}/a.parquet row 1"]}


def test_what_is_left_out_is_counted_by_source_and_the_first_is_named(tmp_path):
    remarks, call = Remarks(), [CHAT[0] | {"tool_calls": [], "name": None}, CHAT[1]]
    table = {
        "source": ["a", "b", "b", "b"],
        "messages": [json.dumps(call), None, None, json.dumps([{"role": "user", "content": [5, IMAGE]}])],
        "segments": [None, json.dumps([TEXT, IMAGE]), json.dumps([IMAGE]), None],
    }
    path = write(tmp_path / "a.parquet", table)
    assert [type(found).__name__ for found in read(path, remarks)] == [
        "Sample",
        "Sample",
        "Problem",
        "Sample",
    ]
    assert remarks == {
        ("a", f"{UNREAD_KEYS} (tool_calls)"): [1, f"{path} row 1 (message 1)"],
        ("b", NO_TEXT): [4, f'{path} row 2 (segment 2: {{"type": "image", "image": "i"}})'],
    }
    remarks.merge(Remarks({("b", NO_TEXT): [3, "later"], ("c", BOTH): [1, "there"]}))
    assert [line.split(", the first")[0] for line in remarks.lines()][1:] == [
        f"b: {NO_TEXT}: 7",
        f"c: {BOTH}: 1",
    ]


def test_what_is_no_utf8_is_a_problem_of_its_row_alone(tmp_path):
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 3], np.int32)), pa.py_buffer(b"\xffok")]
    )
    path = write(tmp_path / "a.parquet", {"uuid": bad, "segments": ['["x"]'] * 2})
    first, second = read(path)
    assert str(first) == f"{path} row 1: uuid is not UTF-8 text."
    assert second == Sample("ok", "s", None, ("x",))
    texts = pa.array([b'["\xff"]', b'["x"]'])
    first, second = read(write(tmp_path / "b.parquet", {"segments": texts}))
    assert "segments is not UTF-8 text" in str(first) and second.segments == ("x",)


def test_deep_json_and_pandas_nan_are_no_crash(tmp_path):
    path = write(tmp_path / "a.parquet", {"messages": [np.nan, np.nan], "segments": ["[" * 100_000, '["x"]']})
    deep, sample = read(path)
    assert "segments is not JSON" in str(deep) and sample.segments == ("x",)


WORDS = st.sampled_from(["text", "image", "user", "bot", "", "\ud83d", "推"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
KEYS = st.sampled_from(["role", "content", "type", "text", "\ud83d"])
ANYTHING = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=4))
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": ANYTHING}), min_size=1)


@given(ANYTHING | MESSAGES, ANYTHING, st.booleans())
def test_whatever_stands_in_a_row_is_a_sample_of_texts_or_one_sentence(messages, segments, as_json):
    cells = {"uuid": "u", "source": "s", "messages": messages, "segments": segments}
    if as_json:
        cells |= {"messages": json.dumps(messages), "segments": json.dumps(segments)}
    remarks = Remarks()
    try:
        sample = Row("a.parquet", 7, remarks).sample(cells)
    except Odd as problem:
        assert str(rows.Problem("a.parquet", 7, *problem.args)).encode().endswith(b".")
    else:
        assert (sample.messages is None) != (sample.segments is None)
        assert all(message["role"] in ROLES for message in sample.messages or ())
        "".join(sample.segments or [message["content"] for message in sample.messages]).encode()
    "".join(remarks.lines()).encode()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """data/part-0 to part-2 and data/more/part-3, and what is none of them; run/ is where we are."""
    for number, name in enumerate(("part-0", "part-1", "part-2", "more/part-3", "_temporary/x", ".hidden")):
        write(tmp_path / f"data/{name}.parquet", {"segments": [f'["{number}"]']})
    (tmp_path / "data/_SUCCESS").touch()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "data"


def names(sources):
    return [[file.name.removesuffix(".parquet") for file in source.files] for source in sources]


ALL = ["part-0", "part-1", "part-2"]
WAYS = {
    "a directory": ("../data", [["part-3", *ALL]]),
    "a pattern": ("../data/part-*", [ALL]),
    "a pattern through all folders": ("../data/**/part-[03].parquet", [["part-3", "part-0"]]),
    "a file": ("../data/part-1.parquet", [["part-1"]]),
    "files with commas": ("../data/part-1.parquet, ../data/part-0.parquet", [["part-1", "part-0"]]),
    "a list": (["../data/part-2.parquet", "../data/more"], [["part-2", "part-3"]]),
    "a JSON list": ("../data/list.json", [["part-1", "part-0"]]),
    "a JSON list of lists and patterns": ("../data/nested.json", [["part-1", "part-0", "part-3"]]),
    "epochs": (
        ["../data/part-0.parquet", {"path": "../data/more", "epochs": 2}, "../data/part-1.parquet"],
        [["part-0", "part-1"], ["part-3"]],
    ),
    "weights in a JSON list": ("../data/mixed.json", [ALL, ["part-3"]]),
}


@pytest.mark.parametrize("way", WAYS)
def test_files_are_found_in_every_way_to_name_them(parts, way):
    (parts / "list.json").write_text('["part-1.parquet", "../data/part-0.parquet"]')  # beside the JSON
    (parts / "nested.json").write_text('["list.json", "more/*"]')
    mixed = [{"path": "part-*.parquet", "weight": 0.7}, {"path": ["more"], "weight": 3}]
    (parts / "mixed.json").write_text(json.dumps(mixed))
    given, expected = WAYS[way]
    found = sources_of(given, "--sources")
    assert names(found) == expected and all(file.is_file() for source in found for file in source.files)
    numbers = {"epochs": [(None, None), (None, 2)], "weights in a JSON list": [(0.7, None), (3, None)]}
    assert [source[1:] for source in found] == numbers.get(way, [(None, None)])


def test_a_path_in_a_json_is_looked_up_beside_it_and_then_where_we_are(parts):
    (parts / "list.json").write_text('["../data/part-2.parquet", "run.parquet"]')
    here = write(parts.parent / "run/run.parquet", {"segments": ['["x"]']})
    assert sources_of("../data/list.json", "--sources")[0].files[1].resolve() == here
    beside = write(parts / "run.parquet", {"segments": ['["x"]']})
    assert sources_of("../data/list.json", "--sources")[0].files[1].resolve() == beside


def test_a_file_whose_name_has_a_comma_is_one_file(parts):
    path = write(parts / "a,b.parquet", {"segments": ['["x"]']})
    assert sources_of(str(path), "--sources") == [Source((path,))]
