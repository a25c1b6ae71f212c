"""Four spellings of semantic ids: as text, and as the index files of the projects they come from."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.data.semantic_id_files import read_index, write_index
from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import ABSENT, SemanticIds
from pixelrec_train.semantic_id.report_card import report_card

PUBLISHED = Path("/work/shared/data/sid")
FILES = {"minionerec": ".json", "onerec": ".json", "semantic_ids_llm": ".parquet", "cb": ".json"}


@st.composite
def some_ids(draw, lengths_differ=False):
    """SemanticIds of a few items, with every level of the same size."""
    levels, size = draw(st.integers(1, 5)), 2 ** draw(st.integers(1, 9))
    row = st.lists(st.integers(0, size - 1), min_size=levels, max_size=levels)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    rows[0][0] = 0  # so that codes are seen to begin with 0
    if lengths_differ:
        rows = [r + [draw(st.integers(0, 3))] if draw(st.booleans()) else r + [ABSENT] for r in rows]
        if all(r[-1] == ABSENT for r in rows):
            rows[0][-1] = 0
    sizes = (size,) * levels + ((4,) if lengths_differ else ())
    return SemanticIds([f"item {n}" for n in range(len(rows))], np.array(rows, np.int32), sizes)


@settings(deadline=None)
@given(ids=some_ids(lengths_differ=True))
@pytest.mark.parametrize("name", CODECS)
def test_an_items_text_reads_back_as_its_codes(ids, name):
    codec, sizes = CODECS[name], ids.codebook_sizes
    for row in ids.codes.tolist():
        codes = tuple(code for code in row if code != ABSENT)
        text = codec.text(row, sizes)
        assert codec.parse(text, sizes) == codes
        assert codec.parse(text.removeprefix(codec.begin), sizes) == codes  # a completed prompt
        tokens = codec.tokens(sizes)
        assert codec.words(row, sizes) == [tokens[level][code] for level, code in enumerate(codes)]


def test_the_same_item_in_all_four():
    codes, sizes = (99, 19, 220, 204), (256,) * 4
    text = {name: codec.text(codes, sizes) for name, codec in CODECS.items()}
    assert text == {
        "onerec": "<|sid_begin|><s_a_99><s_b_19><s_c_220><s_d_204><|sid_end|>",
        "minionerec": "<a_99><b_19><c_220><d_204>",
        "semantic_ids_llm": "<|sid_start|><|sid_99|><|sid_275|><|sid_732|><|sid_972|><|sid_end|>",
        "cb": "<|item_begin|><cb_0_99><cb_1_19><cb_2_220><cb_3_204><|item_end|>",
    }


@pytest.mark.parametrize("text", [
    "", "<s_a_1", "s_a_1", "<s_b_1>", "<s_a_1><s_a_2>", "<s_a_01>", "<s_a_8>", "<s_a_-1>", "<s_a_1> <s_b_1>",
    "<s_a_1><s_b_2><s_c_3><s_d_4>", "<s_a_1>x", "<|sid_begin|><|sid_end|>",
])  # fmt: skip
def test_what_is_no_item_is_refused(text):
    with pytest.raises(InputError, match="is no item in the spelling onerec"):
        CODECS["onerec"].parse(text, (8, 8, 8))


@settings(deadline=None)
@given(ids=some_ids())
@pytest.mark.parametrize("name", CODECS)
def test_an_index_file_reads_back_as_the_ids(ids, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / f"index{FILES[name]}"
    write_index(ids, path, name)
    back = read_index(path, name, ids.codebook_sizes[0])
    assert (back.item_ids, back.codebook_sizes) == (ids.item_ids, ids.codebook_sizes)
    assert (back.codes == ids.codes).all()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_pid2sid_holds_numbers_where_all_ids_are_numbers(tmp_path):
    ids = SemanticIds(["7", "12"], np.array([[0, 1, 2], [3, 0, 1]], np.int32), (4, 4, 4))
    write_index(ids, tmp_path / "pid2sid.parquet", "onerec")
    table = pyarrow.parquet.read_table(tmp_path / "pid2sid.parquet")
    assert table.to_pydict() == {"pid": [7, 12], "sid": [[0, 1, 2], [3, 0, 1]]}
    assert read_index(tmp_path / "pid2sid.parquet", "onerec").item_ids == ["7", "12"]


@pytest.mark.parametrize("pid, item_ids", [
    (pa.array([10**12, 7]), ["1000000000000", "7"]),
    (pa.array(["07", "x"]), ["07", "x"]),
    (pa.array([7.0, 12.0]), ["7", "12"]),  # as pandas writes them where another table had a gap
], ids=["int", "str", "float"])  # fmt: skip
def test_pid2sid_as_openonerec_ships_it(tmp_path, pid, item_ids):
    """Its codes begin with 0, even where none occurs and the largest is a power of two; sizes are a flag."""
    path = tmp_path / "pid2sid.parquet"
    pyarrow.parquet.write_table(pa.table({"pid": pid, "sid": pa.array([[1, 4, 2], [3, 3, 8]])}), path)
    ids = read_index(path, "onerec", 8192)
    assert (ids.item_ids, ids.codes.tolist()) == (item_ids, [[1, 4, 2], [3, 3, 8]])
    assert ids.codebook_sizes == (8192,) * 3
    assert read_index(path, "onerec").codebook_sizes == (16,) * 3


def test_codes_from_one_and_suffixes_of_colliding_items_are_understood(tmp_path):
    """As MiniOneRec's balanced RQ-KMeans writes them."""
    index = {"5": ["<a_1>", "<b_256>", "<c_3>", "<d_1>"], "6": ["<a_1>", "<b_256>", "<c_3>", "<d_2>"],
             "7": ["<a_2>", "<b_1>", "<c_4>"]}  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps(index))
    ids = read_index(tmp_path / "index.json", "minionerec")
    assert ids.codes.tolist() == [[0, 255, 2, 0], [0, 255, 2, 1], [1, 0, 3, ABSENT]]
    assert ids.codebook_sizes == (256, 256, 256, 2)
    assert ids.facts["code_base"] == 1
    write_index(ids, tmp_path / "back.json", "minionerec", code_base=1)
    assert json.loads((tmp_path / "back.json").read_text()) == index
    assert read_index(tmp_path / "index.json", "minionerec", 512, code_base=0).codes[0].tolist() == [
        1,
        256,
        3,
        1,
    ]


@pytest.mark.parametrize("name, content, says", [
    ("minionerec", "[1]", "must hold an object"),
    ("minionerec", "{", "not valid JSON"),
    ("minionerec", "{}", "holds no item"),
    ("minionerec", '{"1": ["<b_1>"]}', "item .1. has .* no id in the spelling minionerec. One reads <a_1>"),
    ("minionerec", '{"1": ["<s_a_1>"]}', "no id in the spelling minionerec"),
    ("minionerec", '{"1": []}', "no id in the spelling"),
    ("minionerec", '{"1": 5}', "no id in the spelling"),
    ("onerec", '{"1": {"title": "x"}}', "no id in the spelling onerec"),
    ("onerec", '{"1": {"sid": "<s_a_1>"}, "2": {"sid": "<s_a_900>"}}', "holds code 900, but"),
    ("semantic_ids_llm", '{"1": ["<|sid_3|>"]}', "Parquet"),
])  # fmt: skip
def test_a_file_that_is_none_is_one_sentence(tmp_path, name, content, says):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(InputError, match=says):
        read_index(tmp_path / "index.json", name, 256, 0)


@pytest.mark.parametrize("columns, says", [
    ({"x": [1], "sid": [[1, 2]]}, "has the columns x, sid"),
    ({"pid": [1]}, "has the columns pid"),
    ({"pid": [1, 1], "sid": [[1], [2]]}, "names an item twice: '1'"),
    ({"pid": [1, None], "sid": [[1], [2]]}, "has None in the column pid"),
    ({"pid": [0.5], "sid": [[1]]}, "has 0.5 in the column pid"),
    ({"pid": [2.0**60], "sid": [[1]]}, "it must be an item's id"),
    ({"pid": [7], "sid": [None]}, "of item '7'"),
    ({"pid": [1], "sid": [[1, -2]]}, "no number from 0 to a billion"),
    ({"pid": [1], "sid": ["<s_a_1>"]}, "no number from 0 to a billion"),
    ({"parent_asin": ["B0"], "semantic_id_0": [None]}, "no number from 0 to a billion"),
])  # fmt: skip
def test_a_table_that_is_none_is_one_sentence(tmp_path, columns, says):
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "index.parquet")
    with pytest.raises(InputError, match=says):
        read_index(tmp_path / "index.parquet", "onerec")


def test_a_damaged_table_is_one_sentence(tmp_path):
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="could not be read"):
        read_index(tmp_path / "index.parquet", "onerec")


@pytest.mark.parametrize("name, file, base, says", [
    ("minionerec", "i.parquet", 0, "kept in a JSON file"),
    ("semantic_ids_llm", "i.json", 0, "kept in a Parquet file"),
    ("onerec", "i.json", 1, "--code_base 1"),
])  # fmt: skip
def test_a_file_that_no_project_reads_is_not_written(tmp_path, name, file, base, says):
    ids = SemanticIds(["7"], np.array([[0, 1]], np.int32), (2, 2))
    with pytest.raises(InputError, match=says):
        write_index(ids, tmp_path / file, name, base)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="published ids are not on this machine")
@pytest.mark.parametrize("name, items, distinct, usage", [
    ("amazon_industrial", 3686, 3670, [48, 256, 256]),
    ("amazon_scientific", 4344, 3790, [32, 256, 256, 256]),
    ("amazon_scientific.nocollision", 4344, 4344, [256, 256, 256, 256]),
])  # fmt: skip
def test_published_ids_load_as_they_are(name, items, distinct, usage):
    ids = read_index(PUBLISHED / f"{name}.index.json", "minionerec")
    card = report_card(ids)
    assert ids.codebook_sizes == (256,) * len(usage)
    assert ids.facts["code_base"] == 0
    assert (card["items"], card["distinct_ids"]) == (items, distinct)
    assert [level["usage"] for level in card["levels"]] == usage
    found = json.loads((PUBLISHED / f"{name}.index.json").read_text())
    words = [CODECS["minionerec"].words(row, ids.codebook_sizes) for row in ids.codes]
    assert words == list(found.values())
