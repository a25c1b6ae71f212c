"""Samples as they stand in Parquet files, and the ways to say which files."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from pixelrec_train.data.samples import Sample, rows

CHAT = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
PLAIN = ({"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"})


def write(path, table, **how):
    """{column: values} as a Parquet file, with uuid and source where they are not given."""
    number = len(next(iter(table.values())))
    table = {"uuid": [f"u{n}" for n in range(number)], "source": ["s"] * number} | table
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({name: v for name, v in table.items() if v is not None}), path, **how)
    return path


def read(path, remarks=None):
    """Samples and Problems of all row groups."""
    groups = range(len(rows.row_counts(path)))
    return [found for group in groups for _, found in rows.samples(path, group, remarks)]


def chats(*contents):
    return [[{"role": "user", "content": content}] for content in contents]


TEXT = {"type": "text", "text": "x"}
CONTENTS = {
    "a text": ("x", "x"),
    "an object": (TEXT, "x"),
    "a list of objects": ([TEXT, {"type": "text", "text": "y"}], "xy"),
    "objects and texts": ([TEXT, "y", TEXT], "xyx"),
    "no text among texts": ([{"type": "image", "image": "i"}, TEXT, 5, None], "x"),
    "nothing but an image": ([{"type": "image"}], ""),
    "an empty text": ("", ""),
    "Chinese": ("推荐", "推荐"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_content_is_one_text_in_whatever_form_it_is_written(tmp_path, name):
    content, expected = CONTENTS[name]
    path = write(tmp_path / "a.parquet", {"messages": [json.dumps(chat) for chat in chats(content)]})
    assert read(path) == [Sample("u0", "s", ({"role": "user", "content": expected},), None)]
    if expected:
        path = write(tmp_path / "b.parquet", {"segments": [json.dumps(content)]})
        wanted = (*expected,) if isinstance(content, list) else None
        found = read(path)[0]
        assert found.segments == wanted if wanted else "segments is no" in str(found)
