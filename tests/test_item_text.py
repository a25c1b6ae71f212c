"""Item texts and their token cache."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from pixelrec_train.config import TableFlags, TextFlags
from pixelrec_train.data import interactions, item_text
from pixelrec_train.data.item_fields import read_texts
from pixelrec_train.data.item_text import ItemText, tokenise
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer


def flags(path, *text_keys):
    return TextFlags(text_data=str(path), text_keys=text_keys, allow_missing_text=True)


def read_with(read, config):
    return item_text.read(read, item_text.Reader.of(config, config.item_dir, ()))


@pytest.fixture
def items_csv(tmp_path):
    path = tmp_path / "items.csv"
    rows = '1,"long, ""quoted""\nand broken",拉面\n2,,\n3,NA,\n9,nobody took it,x\n1,again,y\n'
    path.write_text("item_id,description,title\n" + rows, encoding="utf-8")
    return path


def test_text_is_prompt_and_non_empty_fields_in_order_with_nothing_between(items_csv):
    texts, facts = read_texts(["1", "2", "3", "4"], flags(items_csv, "title", "description"), "Say: ")
    assert texts == [
        'Say: title: 拉面description: long, "quoted"\nand broken',
        "Say: ",  # a row without any field: the prompt alone
        "Say: description: NA",
        "",  # no row: nothing at all
    ]
    assert facts == {"without_text": 1, "unknown_rows": 2, "notes": []}


def test_a_missing_text_column_is_named_with_those_that_are_there(items_csv):
    with pytest.raises(InputError, match=r"no column tag\. Its columns are: item_id, description, title"):
        read_texts(["1"], flags(items_csv, "title", "tag"), "")


def test_a_text_file_of_another_dataset_is_refused(items_csv):
    with pytest.raises(InputError, match="no row for any of the 2 items"):
        read_texts(["i1", "i2"], flags(items_csv, "title"), "")


TEXTS = [
    "",
    "ramen",
    "拉面 and noodles " * 9,
    "x",
    "  two  spaces\n",
    "<|endoftext|>ramen<|endoftext|>",
    "é🍜\ufeff",
]


def rows_of(tokens, offsets):
    return [tokens[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def one_by_one(tokenizer, texts):
    return [tokenizer(text)["input_ids"] for text in texts]


def test_token_ids_are_those_of_one_text_at_a_time(demo_config):
    tokenizer = load_tokenizer(demo_config.item_model_dir)
    slow = one_by_one(tokenizer, TEXTS)
    rows = rows_of(*tokenise(tokenizer, TEXTS, 7, 1, block=2))
    assert rows == [ids[:7] + [0] for ids in slow]
    means = rows_of(*tokenise(tokenizer, TEXTS, 7, 0))
    assert means[0] == [tokenizer.eos_token_id]  # a mean needs at least one token
    assert means[1:] == [ids[:7] for ids in slow[1:]]


def test_special_tokens_are_added_and_what_tokenizer_json_cuts_or_pads_is_not(demo_config):
    tokenizer = load_tokenizer(demo_config.item_model_dir)
    backend, eos = tokenizer.backend_tokenizer, tokenizer.eos_token
    backend.post_processor = TemplateProcessing(
        single=f"{eos} $A {eos}", special_tokens=[(eos, tokenizer.eos_token_id)]
    )
    slow = one_by_one(tokenizer, TEXTS)
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    backend.encode_special_tokens = True
    rows = rows_of(*tokenise(tokenizer, TEXTS, 500, 1))
    assert rows == [ids + [0] for ids in slow]
    assert rows[0] == [tokenizer.eos_token_id] * 2 + [0]


def test_a_cache_that_cannot_be_written_or_read_is_a_sentence_and_leaves_nothing_half_made(
    demo_config, tmp_path, monkeypatch
):
    def full(file, array):
        file.write_bytes(b"half")
        raise OSError("4096 requested and 4 written")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(InputError, match="cannot be written: 4096 requested.*disk full.*--cache_dir"):
            interactions.read([demo_config.interaction_data], TableFlags(cache_dir=str(tmp_path)))
        assert not list(tmp_path.iterdir())
    interactions.read([demo_config.interaction_data], TableFlags(cache_dir=str(tmp_path)))
    items = next(tmp_path.glob("*/items.npy"))
    items.write_bytes(items.read_bytes()[:200])
    with pytest.raises(InputError, match="is damaged: .* Delete it; it is made again"):
        interactions.read([demo_config.interaction_data], TableFlags(cache_dir=str(tmp_path)))


def test_a_tokenizer_with_its_own_way_to_encode_keeps_it(demo_config):
    tokenizer = load_tokenizer(demo_config.item_model_dir)

    class Shouting(type(tokenizer)):
        def _encode_plus(self, text, **settings):
            return super()._encode_plus([t.upper() for t in text], **settings)

    slow = one_by_one(tokenizer, [text.upper() for text in TEXTS])
    tokenizer.__class__ = Shouting
    assert rows_of(*tokenise(tokenizer, TEXTS, 500, 1)) == [ids + [0] for ids in slow]


def test_no_progress_bar_where_there_is_no_terminal(demo_config, capfd):
    tokenise(load_tokenizer(demo_config.item_model_dir), TEXTS, 7, 1, block=1)
    assert capfd.readouterr() == ("", "")


@given(st.data(), st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_packed_texts_are_those_asked_for_in_their_order_and_no_part_mixes_them(data, lengths, parts):
    slow = [[item * 100 + place for place in range(length)] for item, length in enumerate(lengths)]
    offsets = np.cumsum([0, *lengths])
    text = ItemText(np.array(sum(slow, []), np.int32), offsets, 0, 0, "made")
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=40))
    packed = text.pack(np.array(chosen))
    assert packed.lengths.tolist() == [len(slow[i]) for i in chosen]
    assert packed.token_ids.tolist() == sum((slow[i] for i in chosen), [])
    first, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(chosen))] * 2)))
    part = packed.part(first, stop)
    assert part.token_ids.tolist() == sum((slow[i] for i in chosen[first:stop]), [])
    bounds = packed.bounds(parts)
    assert [i for a, b in bounds for i in range(a, b)] == list(range(len(chosen))) and len(bounds) == parts


def test_the_cache_is_rebuilt_for_every_setting_that_changes_tokens_and_reused_otherwise(
    demo_config, tmp_path
):
    config = replace(demo_config, cache_dir=str(tmp_path))
    read = interactions.read([config.interaction_data], config)
    marks = {read_with(read, config).fingerprint}
    for change in (
        {"text_keys": ("title",)}, {"item_prompt": "x"}, {"max_text_length": 9}, {"item_emb_token_n": 0},
    ):  # fmt: skip
        marks.add(read_with(read, replace(config, **change)).fingerprint)
    assert len(marks) == 5
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    read_with(read, config)
    assert files == {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}


def test_a_half_made_cache_is_made_again(demo_config, tmp_path):
    config = replace(demo_config, cache_dir=str(tmp_path))
    read = interactions.read([config.interaction_data], config)
    before = read_with(read, config)
    tokens = before.tokens.copy()
    facts = next(tmp_path.glob(f"item_text-{before.fingerprint}/facts.json"))
    facts.unlink()  # written last, so a killed build lacks it
    (facts.parent / "tokens.npy").unlink()
    (facts.parent / "tokens.npy").write_bytes(b"half")
    assert np.array_equal(read_with(read, config).tokens, tokens)
