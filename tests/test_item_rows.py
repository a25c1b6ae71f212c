"""Items, their rows and their texts in little memory, as lists and dicts have them."""

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelrec_train.config import TextFlags, TokenFlags
from pixelrec_train.data import cache, ids, item_fields, item_rows, item_text, tables, text_file
from pixelrec_train.data.ids import Ids
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer

TEXT = st.text("abé拉🍜 \u2003&'[]", max_size=6)
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HASHES = {"as they are": hash, "nearly all alike": lambda text: len(text) % 2, "all alike": lambda text: 0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module, name in (
        (ids, "AT_ONCE"), (item_rows, "AT_ONCE"), (text_file, "AT_ONCE"), (tables, "ROWS"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 3)


@pytest.fixture(params=HASHES)
def hashes(request, monkeypatch):
    monkeypatch.setattr(item_rows, "hash", HASHES[request.param], raising=False)


@given(st.lists(TEXT), st.integers(-12, 12), st.integers(-12, 12))
@SHARED
def test_ids_are_the_list_they_are_made_of(texts, first, stop):
    made = Ids.of(texts)
    assert list(made) == texts and made == texts and texts == made and Ids.of(made) is made
    assert len(made) == len(texts) and made[first:stop] == texts[first:stop]
    assert made != [*texts, "a"] and (not texts or made != ["x", *texts[1:]])
    if -len(texts) <= first < len(texts):
        assert made[first] == texts[first]
    else:
        with pytest.raises(IndexError):
            made[first]


@given(st.lists(st.lists(TEXT, max_size=9), max_size=4))
@SHARED
def test_each_id_once_in_the_order_of_first_rows_whatever_its_hash(hashes, blocks):
    found = item_rows.distinct(pa.array(block, pa.string()) for block in blocks)
    assert list(found) == list(dict.fromkeys(filter(None, sum(blocks, []))))


@given(st.lists(TEXT, unique=True), st.lists(st.lists(TEXT, max_size=9), max_size=4))
@SHARED
def test_a_text_is_found_among_ids_whatever_its_hash(hashes, known, blocks):
    places, place = item_rows.Places(known), {text: n for n, text in enumerate(known)}
    for block in (*blocks, known[:2], known[2:5], known):  # in their order too, and not where it is expected
        assert places.of(pa.array(block, pa.string())).tolist() == [place.get(text, -1) for text in block]


def slow_texts(item_ids, rows, keys, prompt):
    """All rows in memory and a dict: what a table says of each item."""
    number, found, others = {item_id: n for n, item_id in enumerate(item_ids)}, {}, 0
    for item_id, *values in rows:
        n = number.get(item_id.strip())
        if n is None or n in found:
            others += 1
        else:
            values = map(item_fields.plain_text, values)
            found[n] = prompt + "".join(f"{k}: {v}" for k, v in zip(keys, values, strict=True) if v)
    texts = [found.get(n, "") for n in range(len(item_ids))]
    return texts, {"without_text": len(item_ids) - len(found), "unknown_rows": others, "notes": []}


ROWS = [
    (" b ", "b &amp; 'c'", "x"), ("a", "", ""), ("c", "['one', 'two']", "拉面 🍜"), ("b", "again", "y"),
    ("nobody's", "n", "n"), ("f", "long " * 9, ""), ("", "no id", ""), ("e", "['\\ud800']", "half a letter"),
    ("a", "again", "at the end"), ("\u2003g", "NA", "007"),
]  # fmt: skip


def write_table(path, rows, form):
    frame = pd.DataFrame(rows, columns=["item_id", "title", "tag"])
    if form == "parquet":
        frame.to_parquet(path, row_group_size=3)
    elif form == "jsonl":
        records = map(json.dumps, frame.to_dict("records"))
        path.write_text("\n".join(records), encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="," if form == "csv" else "\t")  # quoted where it has commas
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_texts_on_disk_are_those_of_a_dict_in_the_order_of_the_items(tmp_path, hashes, form):
    path = write_table(tmp_path / f"items.{form}", ROWS, form)
    keys = ("tag", "title")
    texts = TextFlags(
        text_data=str(path), text_keys=keys, allow_missing_text=True, cache_dir=str(tmp_path / "c")
    )
    rows = [(row[0], row[2], row[1]) for row in ROWS]
    for item_ids in (["a", "b", "c", "d", "e", "f", "g"], ["b", "a", "c", "f", "e", "g"], ["g", "f"]):
        expected, facts = slow_texts(item_ids, rows, keys, "Say: ")
        file, found = item_fields.texts_on_disk(item_ids, texts, "Say: ")
        assert sum(file.blocks(), []) == expected and found == facts and len(file) == len(item_ids)
        assert item_fields.read_texts(item_ids, texts, "Say: ") == (expected, facts)
    assert list(item_fields.item_ids(texts)) == ["b", "a", "c", "nobody's", "f", "e", "g"]
    assert not list((tmp_path / "c").iterdir())  # the file has no name


def token_flags(path, folder):
    return TokenFlags(
        text_data=str(path), text_keys=("title",), max_text_length=7, cache_dir=str(folder / "cache"),
        allow_missing_text=True,
    )  # fmt: skip


def tokens_of(item_ids, texts, demo, placeholders=1):
    reader = item_text.Reader(texts, demo / "towers/item_llm", False, "", placeholders)
    return item_text.read(SimpleNamespace(item_ids=item_ids, fingerprint="x"), reader)


@pytest.mark.parametrize("placeholders", [0, 1])
def test_the_token_cache_has_the_bytes_of_all_texts_tokenised_at_once(demo, tmp_path, placeholders):
    rows = pd.read_csv(demo / "items.csv", dtype=str, keep_default_na=False)
    rows = rows[["item_id", "title", "tag"]].iloc[::-1]
    path = write_table(tmp_path / "items.csv", rows.values.tolist() * 2, "csv")
    item_ids = [*sorted(rows["item_id"])[:50], "without a row"]
    read = tokens_of(item_ids, token_flags(path, tmp_path), demo, placeholders)
    all_texts, facts = slow_texts(item_ids, rows[["item_id", "title"]].values.tolist() * 2, ("title",), "")
    tokenizer = load_tokenizer(demo / "towers/item_llm")
    slow = [tokenizer(text)["input_ids"][:7] for text in all_texts]
    slow = [(ids or [tokenizer.eos_token_id] * (not placeholders)) + [0] * placeholders for ids in slow]
    offsets = np.cumsum([0, *map(len, slow)], dtype=np.int64)
    arrays = {"tokens": np.array(sum(slow, []), np.int32), "offsets": offsets}
    cache.write(tmp_path / "slow", arrays, facts)
    (made,) = (tmp_path / "cache").iterdir()
    for name in ("tokens.npy", "offsets.npy", "facts.json"):
        assert (made / name).read_bytes() == (tmp_path / "slow" / name).read_bytes(), name
    assert read.largest_token == arrays["tokens"].max()
    read.let_go()  # and is read again
    assert np.array_equal(read.tokens, arrays["tokens"])


def test_an_array_that_grows_on_disk_is_what_numpy_saves(tmp_path):
    for parts in ([], [[]], [[1, 2], [], [3]], [range(99), range(9999)]):
        made, parts = cache.ArrayFile(tmp_path, np.int32), [np.array(part, np.int64) for part in parts]
        for part in parts:
            made.write(part)
        cache.write(tmp_path / "made", {"array": made}, {})
        saved = np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32)
        cache.write(tmp_path / "saved", {"array": saved}, {})
        for name in ("array.npy", "facts.json"):
            assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()
        shutil.rmtree(tmp_path / "made"), shutil.rmtree(tmp_path / "saved")


@pytest.mark.parametrize("full", [1, 2])
def test_a_disk_that_is_full_is_a_sentence_and_leaves_nothing_half_made(demo, tmp_path, monkeypatch, full):
    """The first file is of texts, the second of tokens."""
    opened, texts = [], token_flags(demo / "items.csv", tmp_path)

    class File(io.BytesIO):
        def write(self, data):
            if len(opened) == full:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def new(dir):
        opened.append(dir)
        return File() if len(opened) == full else tempfile_of(dir=dir)

    tempfile_of = cache.tempfile.TemporaryFile
    with monkeypatch.context() as patch:
        patch.setattr(cache.tempfile, "TemporaryFile", new)
        with pytest.raises(InputError, match="cannot be written: .*No space left.*--cache_dir"):
            tokens_of(["i00000"], texts, demo)
    assert len(opened) == full and not list((tmp_path / "cache").iterdir())
    tokens_of(["i00000"], texts, demo)
