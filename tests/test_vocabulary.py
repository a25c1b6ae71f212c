"""Itemic tokens come into a vocabulary, and nothing that was there before changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pixelrec_train.commands import expand_vocabulary
from pixelrec_train.commands import make_demo as commands_demo
from pixelrec_train.errors import InputError
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.vocabulary import META_FILE, ItemicVocabulary
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds

SIZES = (8, 16, 100)
TEXTS = ["the quick brown fox jumps over the lazy dog", "a tale of two cities", "Äpfel und Birnen"] * 3
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
GENERATION = '{"do_sample": false, "temperature": 0.3, "eos_token_id": 0}'  # transformers would not save it


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """{tied: directory} of two tiny Qwen3 with chat template and generation config."""
    folder = tmp_path_factory.mktemp("base")
    made = {}
    for tied in (True, False):
        made[tied] = write_causal_lm(TEXTS, folder / f"tied{tied}", hidden_size=32, tied=tied)
        (made[tied] / "chat_template.jinja").write_text(TEMPLATE)
        (made[tied] / "generation_config.json").write_text(GENERATION)
    return made


def expand(source, destination, *more):
    sizes = ("--itemic_layer_n", "3", "--vocab_size_per_layer", ",".join(map(str, SIZES)))
    flags = ["--hf_model_dir", str(source), "--output_model_dir", str(destination), *sizes, *more]
    expand_vocabulary.main.__wrapped__(flags)
    return ItemicVocabulary.load(destination)


@pytest.fixture(scope="module")
def expanded(base, tmp_path_factory):
    """{tied: directory} of the same two with itemic tokens."""
    folder = tmp_path_factory.mktemp("expanded")
    for tied, source in base.items():
        expand(source, folder / f"tied{tied}")
    return {tied: folder / f"tied{tied}" for tied in base}


def rows_of(directory, name="model.embed_tokens.weight"):
    return load_file(Path(directory) / "model.safetensors")[name]


def test_ranges_are_those_of_openonerec():
    """Qwen3 has 151,669 words; 3 x 8192 codes, begin and end follow (their itemic_id_range)."""
    sizes = (8192,) * 3
    vocabulary = ItemicVocabulary("onerec", sizes, 151_669, 176_384, "mean_cov", 0, "Qwen3-1.7B", "")
    assert vocabulary.level_ranges == [(151_669, 159_860), (159_861, 168_052), (168_053, 176_244)]
    assert (vocabulary.begin_id, vocabulary.end_id) == (176_245, 176_246)
    assert vocabulary.tokenizer_length == 176_247


@pytest.mark.parametrize("codec", CODECS)
def test_every_token_is_one_id_alone_and_in_a_row_and_text_comes_back(base, tmp_path, codec):
    vocabulary = expand(base[True], tmp_path / "out", "--codec", codec)
    before, after = (AutoTokenizer.from_pretrained(d) for d in (base[True], tmp_path / "out"))
    levels = CODECS[codec].tokens(SIZES)
    for level, (words, (first, last)) in enumerate(zip(levels, vocabulary.level_ranges, strict=True)):
        assert last - first + 1 == SIZES[level]
        assert [after.encode(word) for word in words] == [[first + code] for code in range(len(words))]
    codes = np.array([[7, 0, 99], [0, 15, 3]])
    item = [CODECS[codec].begin + "".join(levels[n][c] for n, c in enumerate(row)) for row in codes]
    text = f"the {item[0]}{item[1]}{CODECS[codec].end} fox,\n{item[1]} Äpfel"
    ids = after.encode(text)
    assert after.decode(ids, skip_special_tokens=True) == text
    itemic = [n for n in ids if n not in (vocabulary.begin_id, vocabulary.end_id)]
    itemic = [n for n in itemic if vocabulary.is_itemic(np.array(n))]
    assert itemic == vocabulary.token_ids(codes[[0, 1, 1]]).flatten().tolist()
    assert before.encode(TEXTS[0]) == after.encode(TEXTS[0])
    assert not set(vocabulary.new_tokens()) & set(after.all_special_tokens)


@pytest.mark.parametrize("tied", [True, False])
def test_old_logits_do_not_change_by_a_bit_and_every_new_row_is_drawn(base, expanded, tied):
    vocabulary = ItemicVocabulary.load(expanded[tied])
    first = vocabulary.first_new_id
    before, after = (AutoModelForCausalLM.from_pretrained(d[tied]) for d in (base, expanded))
    tokens = torch.arange(first).reshape(2, -1) if first % 2 == 0 else torch.arange(first)[None]
    with torch.no_grad():
        assert torch.equal(before(tokens).logits[..., :first], after(tokens).logits[..., :first])
    assert (after.get_output_embeddings().weight is after.get_input_embeddings().weight) == tied
    names = ["model.embed_tokens.weight"] + ["lm_head.weight"] * (not tied)
    assert ("lm_head.weight" in load_file(expanded[tied] / "model.safetensors")) != tied
    for name in names:
        old, new = rows_of(base[tied], name), rows_of(expanded[tied], name)
        assert len(new) == vocabulary.rows and len(new) % 256 == 0
        assert len(old) > first  # the trap: these rows are in the base model, and no word ever used them
        assert torch.equal(new[:first], old[:first])
        assert not (new[first : len(old)] == old[first:]).all(1).any()
        assert len(new[first:].unique(dim=0)) == len(new) - first  # the rows behind the last token as well
        ratio = new[first:].norm(dim=1).mean() / old[:first].norm(dim=1).mean()
        assert 0.8 < ratio < 1.2


def test_mean_cov_has_the_old_rows_moments_and_mean_their_mean(base, tmp_path):
    moments = {}
    for init in ("mean_cov", "mean"):
        sizes = ("--vocab_size_per_layer", "20000", "--itemic_layer_n", "1", "--init", init)
        vocabulary = expand(base[True], tmp_path / init, *sizes)
        rows = rows_of(tmp_path / init)
        old, new = rows[: vocabulary.first_new_id], rows[vocabulary.first_new_id :]
        moments[init] = old, new
        assert torch.allclose(new.mean(0), old.mean(0), atol=1e-3)
    old, new = moments["mean_cov"]
    assert torch.allclose(new.T.cov(), old.T.cov(correction=0), atol=3e-5)
    old, new = moments["mean"]
    assert (new - old.mean(0)).norm(dim=1).max() < 0.05 * old.mean(0).norm()


def test_a_tied_head_that_lies_in_the_file_as_well_is_taken_for_what_it_is(base, expanded, tmp_path):
    """Qwen3-0.6B is published so: tied, and lm_head.weight written out."""
    shutil.copytree(base[True], tmp_path / "twice")
    weights = load_file(tmp_path / "twice/model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "twice/model.safetensors", {"format": "pt"})
    expand(tmp_path / "twice", tmp_path / "out")
    written = (tmp_path / "out/model.safetensors").read_bytes()
    assert written == (expanded[True] / "model.safetensors").read_bytes()


def test_the_demo_makes_a_base_model(demo, tmp_path):
    flags = ["--text_data", str(demo / "items.csv"), "--lm_dir", str(tmp_path / "lm"), "--hidden_size", "32"]
    commands_demo.main.__wrapped__(flags)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "lm").config.tie_word_embeddings
    assert expand(tmp_path / "lm", tmp_path / "out").rows % 256 == 0


def test_the_seed_decides_the_new_rows_and_nothing_else_does(base, expanded, tmp_path):
    expand(base[False], tmp_path / "same")
    expand(base[False], tmp_path / "other", "--seed", "7")
    for name in ("model.safetensors", META_FILE, "tokenizer.json", "config.json"):
        same = (tmp_path / "same" / name).read_bytes()
        assert same == (expanded[False] / name).read_bytes()
        assert (same == (tmp_path / "other" / name).read_bytes()) == name.startswith(("token", "config"))


def test_precision_chat_template_and_generation_config_are_kept(base, tmp_path):
    shutil.copytree(base[True], tmp_path / "half")
    weights = load_file(tmp_path / "half/model.safetensors")
    save_file(
        {k: v.bfloat16() for k, v in weights.items()}, tmp_path / "half/model.safetensors", {"format": "pt"}
    )
    config = json.loads((tmp_path / "half/config.json").read_text()) | {"dtype": "bfloat16", "own": [1]}
    (tmp_path / "half/config.json").write_text(json.dumps(config))
    vocabulary = expand(tmp_path / "half", tmp_path / "out")
    written = load_file(tmp_path / "out/model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in written.values())
    assert json.loads((tmp_path / "out/config.json").read_text()) == config | {"vocab_size": vocabulary.rows}
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == TEMPLATE
    assert (tmp_path / "out/generation_config.json").read_text() == GENERATION
    new = rows_of(tmp_path / "out")[vocabulary.first_new_id :]
    assert len(new.unique(dim=0)) == len(new)  # rounding has not made them one


def test_the_meta_file_written_again_is_the_same_to_the_byte(expanded, tmp_path):
    ItemicVocabulary.load(expanded[True]).save(tmp_path)
    assert (tmp_path / META_FILE).read_bytes() == (expanded[True] / META_FILE).read_bytes()


def test_ids_and_codes_and_levels_are_each_others_inverse(expanded):
    vocabulary = ItemicVocabulary.load(expanded[True])
    codes = np.array([[0, 0, 0], [7, 15, 99], [3, -1, -1]], np.int32)
    for array in (codes, torch.from_numpy(codes)):
        ids = vocabulary.token_ids(array)
        assert type(ids) is type(array) and (vocabulary.codes(ids) == array).all()
        assert vocabulary.level_of(ids).tolist() == [[0, 1, 2], [0, 1, 2], [0, -1, -1]]
        with pytest.raises(ValueError, match="not ids of the levels"):
            vocabulary.codes(ids - 1)
    first, length = vocabulary.first_new_id, vocabulary.tokenizer_length
    around = torch.tensor([first - 1, first, vocabulary.begin_id, vocabulary.end_id, length])
    assert vocabulary.is_itemic(around).tolist() == [False, True, True, True, False]
    assert vocabulary.level_of(around).tolist() == [-1, 0, -1, -1, -1]


@pytest.mark.parametrize(
    "file, change",
    [
        (META_FILE, {"begin_id": 5}),
        (META_FILE, {"level_ranges": [[1, 2], [3, 4], [5, 6]]}),
        (META_FILE, {"first_new_id": 300}),
        (META_FILE, {"codebook_sizes": [16, 8, 100], "level_ranges": None}),
        (META_FILE, {"codec": "minionerec", "begin_id": None, "end_id": None}),
        (META_FILE, {"rows": 1024}),
        ("config.json", {"vocab_size": 1024}),
    ],
)
def test_a_range_that_contradicts_another_is_refused(expanded, tmp_path, file, change):
    shutil.copytree(expanded[True], tmp_path / "m")
    found = json.loads((tmp_path / "m" / file).read_text()) | change
    (tmp_path / "m" / file).write_text(json.dumps(found))
    with pytest.raises(InputError, match="does not go with the files beside it"):
        ItemicVocabulary.load(tmp_path / "m")


def test_what_cannot_be_expanded_is_refused_and_leaves_nothing(base, expanded, demo, tmp_path):
    def refused(sentence, source, *more):
        with pytest.raises(InputError, match=sentence):
            expand(source, tmp_path / "out/deep", *more)
        assert not list((tmp_path / "out").glob("*"))

    (tmp_path / "out").mkdir()
    refused("126 of the 126 tokens are in its vocabulary already", expanded[True])
    refused("weights of the architecture", demo / "towers/item_llm")  # no head, and not tied
    refused(
        "--vocab_size_per_layer names 3 levels, --itemic_layer_n says 2", base[True], "--itemic_layer_n", "2"
    )
    shutil.copytree(base[True], tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    refused("mute has no tokenizer that can be loaded: none of its files is there", tmp_path / "mute")
    refused(
        "--vocab_size_per_layer must be 1 to a million, got '0'", base[True], "--vocab_size_per_layer", "0"
    )
    refused("how many tokens.*or --semantic_ids", base[True], "--vocab_size_per_layer", "none")
    SemanticIds([], np.zeros((0, 2), np.int32), (4, 4)).save(tmp_path / "sid.json")
    refused("has codebooks of 4, 4", base[True], "--semantic_ids", str(tmp_path / "sid.json"))
    untied = shutil.copytree(base[False], tmp_path / "untied")  # two tables, and a config that says one
    config = json.loads((untied / "config.json").read_text()) | {"tie_word_embeddings": True}
    (untied / "config.json").write_text(json.dumps(config))
    refused("tie_word_embeddings = True, but the weights say otherwise", untied)
    short = shutil.copytree(base[True], tmp_path / "short")
    weights = load_file(short / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:200].clone()
    save_file(weights, short / "model.safetensors", {"format": "pt"})
    config = json.loads((short / "config.json").read_text()) | {"vocab_size": 200}
    (short / "config.json").write_text(json.dumps(config))
    refused("words, but model.embed_tokens.weight only 200 rows", short)


def test_an_output_is_replaced_only_when_asked_and_only_if_it_is_ours(base, tmp_path):
    expand(base[True], tmp_path / "out")
    with pytest.raises(InputError, match="already holds an expanded model"):
        expand(base[True], tmp_path / "out")
    expand(base[True], tmp_path / "out", "--overwrite", "--codec", "cb")
    assert ItemicVocabulary.load(tmp_path / "out").codec == "cb"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(InputError, match="no expansion wrote it"):
        expand(base[True], base[False], "--overwrite")
    with pytest.raises(InputError, match="must not be --hf_model_dir"):
        expand(base[True], base[True], "--overwrite")


def test_the_script_takes_the_documented_variables(base, tmp_path):
    result = run_command(
        ["bash", ROOT / "scripts/expand_qwen3_vocab.sh", "--seed", "3"], HF_MODEL_DIR=str(base[True]),
        OUTPUT_MODEL_DIR=str(tmp_path / "out"), ITEMIC_LAYER_N="4", VOCAB_SIZE_PER_LAYER="16",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    vocabulary = ItemicVocabulary.load(tmp_path / "out")
    assert vocabulary.codebook_sizes == (16,) * 4 and vocabulary.seed == 3
    assert "66 new tokens (onerec)" in result.stdout
