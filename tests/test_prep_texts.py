"""scripts/prep.py --source text: ids in texts, from one spelling to another."""

import itertools
import json
import random

import pytest
from conftest import ROOT, as_flags

from pixelrec_train.commands import prep
from pixelrec_train.data.convert.respelling import Respelling
from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id.codecs import CODECS

SIZES = (5, 300, 7, 11)
PAIRS = list(itertools.permutations(CODECS, 2))
GAPS = ("", " ", ", ", " -> ", "', '", " bought <b>it</b> & x<y ", "\\n", "推荐")


def respelled(text, source, target, sizes=SIZES):
    return Respelling(source, target, sizes).line(text, "here")


@pytest.mark.parametrize("source, target", PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_a_text_reads_as_if_it_had_been_written_in_the_other_spelling(source, target, seed):
    """Items of all lengths, one behind the other or with anything between them; there and back."""
    dice = random.Random(seed)
    parts = []
    for _ in range(40):
        levels = dice.randint(1, 4)
        parts += [tuple(dice.randrange(size) for size in SIZES[:levels]), dice.choice(GAPS)]

    def written(name):
        return "".join(part if isinstance(part, str) else CODECS[name].text(part, SIZES) for part in parts)

    assert respelled(written(source), source, target) == written(target)
    assert respelled(written(target), target, source) == written(source)


def test_the_published_example_comes_out_letter_for_letter():
    onerec = "<|sid_begin|><s_a_99><s_b_19><s_c_220><s_d_204><|sid_end|>"
    llm = "<|sid_start|><|sid_99|><|sid_275|><|sid_732|><|sid_972|><|sid_end|>"
    assert respelled(onerec, "onerec", "semantic_ids_llm", (256,) * 4) == llm
    assert respelled(f"<|rec|>{llm}", "semantic_ids_llm", "onerec", (256,) * 4) == f"<|rec|>{onerec}"


@pytest.mark.parametrize(
    "source, target, text, expected",
    [
        ("semantic_ids_llm", "onerec", "of prefix <|sid_start|><|sid_0|><|sid_6|> belong",
         "of prefix <|sid_begin|><s_a_0><s_b_1> belong"),
        ("semantic_ids_llm", "onerec", "in the format <|sid_start|><|sid_X|><|sid_Y|><|sid_end|> that",
         "in the format <|sid_begin|><|sid_X|><|sid_Y|><|sid_end|> that"),
        ("onerec", "cb", "<s_a_1><s_b_2> and <s_a_1>", "<cb_0_1><cb_1_2> and <cb_0_1>"),
        ("onerec", "minionerec", "<|sid_begin|><s_a_1><s_b_2><|sid_end|>", "<a_1><b_2>"),
        ("minionerec", "onerec", "an <a> tag, <b_new>, a_1", "an <a> tag, <b_new>, a_1"),
    ],
    ids=["a prefix", "a placeholder", "bare", "no words around", "html"],
)  # fmt: skip
def test_what_is_no_whole_item_is_taken_as_it_stands(source, target, text, expected):
    assert respelled(text, source, target) == expected


@pytest.mark.parametrize(
    "source, text, says",
    [
        ("onerec", "<s_a_5>", "<s_a_5> is none of --codebook_sizes 5, 300, 7, 11"),
        ("onerec", "<s_a_01>", "<s_a_01> is none of"),
        ("onerec", "<s_e_1>", "<s_e_1> is none of"),
        ("onerec", "<s_a_-1>", "<s_a_-1> is none of"),
        ("onerec", "<s_a_1><s_c_2>", "<s_c_2> is of level 3, not 2"),
        ("onerec", "x <s_b_2>", "<s_b_2> is of level 2, not 1"),
        ("onerec", "<|sid_begin|><s_a_1><s_a_2><|sid_end|>", "<s_a_2> is of level 1, not 2"),
        ("onerec", "<|sid_begin|><|sid_end|>", "is not followed by codes and an end"),
        ("onerec", "<|sid_begin|><s_a_1><|sid_begin|>", "is not followed by codes and an end"),
        ("semantic_ids_llm", "<|sid_323|>", "<|sid_323|> is none of"),
        ("semantic_ids_llm", "<|sid_1|><|sid_310|>", "<|sid_310|> is of level 3, not 2"),
        ("minionerec", '["<a_1>", "<b_2>"]', "<b_2> is of level 2, not 1.*--import_index"),
        ("cb", "<cb_0_5>", "<cb_0_5> is none of"),
        ("cb", "<cb_4_1>", "<cb_4_1> is none of"),
    ],
)  # fmt: skip
def test_an_id_that_does_not_parse_is_an_error(source, text, says):
    other = next(name for name in CODECS if name != source)
    with pytest.raises(InputError, match=f"^here: .* is no id in the spelling {source}: .*{says}"):
        respelled(text, source, other)


def test_files_there_and_back_are_the_same_bytes_and_are_counted(tmp_path, capsys):
    given = ROOT / "tests/fixtures/onerec_think/files/Beauty.pretrain.json"
    flags = {"source": "text", "input": given, "output": tmp_path / "new/llm.json"}
    prep.main(as_flags(flags | {"codec_from": "onerec", "codec_to": "semantic_ids_llm"}))
    out = capsys.readouterr().out
    assert "ids: 32 in 32 lines, onerec -> semantic_ids_llm, codebooks of 256, 256, 256, 256\n" in out
    assert "ids of fewer levels than there are codebooks: 1\n" in out
    expected = json.loads((ROOT / "tests/fixtures/onerec_think/expected_preparation.json").read_text())
    items = json.loads((tmp_path / "new/llm.json").read_text())
    assert all(items[item["parent_asin"]]["sid"] == item["semantic_id"] for item in expected["items"])
    back = {"input": tmp_path / "new/llm.json", "output": tmp_path / "back.json"}
    prep.main(as_flags(flags | back | {"codec_from": "semantic_ids_llm", "codec_to": "onerec"}))
    assert (tmp_path / "back.json").read_bytes() == given.read_bytes()
    (tmp_path / "rec.txt").write_bytes("<|rec|><|sid_start|><|sid_0|>\r\n推荐\r\n".encode())
    last = {"input": tmp_path / "rec.txt", "output": tmp_path / "back.json", "overwrite": True}
    prep.main(as_flags(flags | last | {"codec_from": "semantic_ids_llm", "codec_to": "cb"}))
    assert (tmp_path / "back.json").read_bytes() == "<|rec|><|item_begin|><cb_0_0>\r\n推荐\r\n".encode()
    assert "<|rec|>, which cb does not have, left as it stands: 1\n" in capsys.readouterr().out


def test_the_spelling_a_file_has_is_said_where_another_was_named(tmp_path):
    (tmp_path / "a.txt").write_text("<s_a_1><s_b_2>")
    with pytest.raises(SystemExit):
        prep.main(as_flags({"source": "text", "input": tmp_path / "a.txt", "output": tmp_path / "b.txt",
                            "codec_from": "cb", "codec_to": "minionerec"}))  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]
