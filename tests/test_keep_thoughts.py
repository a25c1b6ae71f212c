"""scripts/keep_thoughts.py: samples between two epochs, with thoughts where a model finds the item itself."""

import json
import sys
from pathlib import Path

import pyarrow
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed, run_command
from pyarrow import parquet
from test_evaluate_qwen3 import write_talking_model
from transformers import AutoModelForCausalLM

from pixelrec_train.commands import build_samples, keep_thoughts
from pixelrec_train.data.samples import Sample
from pixelrec_train.data.tokens.chat import THINK_EMPTY, Renderer
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.reading import Decoder, read
from pixelrec_train.model.thoughts import Sampling, think, uniforms
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.recommend.thinking import key_of
from pixelrec_train.run import rendezvous
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.trie import Trie

TASK, TOKENS, BEAMS = "reasoned_prediction", 10, 90


@pytest.fixture(scope="module")
def folder(demo_config, tmp_path_factory):
    """llm/ and sid.json; samples/: a mix of thoughts, ids without any, and a text that lies elsewhere."""
    folder = write_talking_model(tmp_path_factory.mktemp("kept"), demo_config)
    tables = {
        name: getattr(demo_config, name) for name in ("interaction_data", "text_data", "cache_dir")
    }  # fmt: skip
    made = tables | {"text_keys": "title,tag", "semantic_ids": folder / "sid.json", "rows_per_file": 50}
    build_samples.main(as_flags(made | {"output_dir": folder / "general", "task": "item_understand"}))
    made |= {"model_dir": folder / "llm", "max_length": 1024, "general": folder / "general/*.parquet"}
    made |= {"weights": f"{TASK}=0.5,sid_prediction=0.3,general=0.2", "output_dir": folder / "samples"}
    build_samples.main(as_flags(made))
    return folder


def flags(folder, **changes):
    given = {
        "samples": folder / "samples", "model_dir": folder / "llm", "semantic_ids": folder / "sid.json",
        "output_dir": folder / "kept", "num_beams": BEAMS, "thought_tokens": TOKENS, "seed": 5,
        "temperature": 1.0, "top_k": 20,
    }  # fmt: skip
    return as_flags(given | changes)


@pytest.fixture(scope="module")
def kept(folder):
    """The directory that one rank writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)
        keep_thoughts.main(flags(folder))
    return folder / "kept"


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)


def rows_of(directory, task):
    return [
        row
        for path in sorted((directory / task).glob("*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]


def files_of(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@torch.no_grad()
def slow_find(folder, model, tokenizer, ids, row, thoughts):
    """Whether a row's own id is among those behind one of the thoughts: a row at a time, its texts whole."""
    messages, trie = json.loads(row["messages"]), Trie.of(ids.codes)
    vocabulary, codec = ItemicVocabulary.load(folder / "llm"), CODECS["onerec"]
    told = Renderer(tokenizer, add_think_pattern=True).text(Sample("u", "s", tuple(messages), None))[0]
    prompt = tokenizer(
        told[: told.rindex("<think>")], add_special_tokens=False, return_tensors="pt"
    ).input_ids
    end, words = tokenizer.convert_tokens_to_ids("</think>"), len(tokenizer)
    stops = torch.tensor(
        [i for i in {*tokenizer.all_special_ids} if not vocabulary.is_itemic(i) and i != end]
    )
    decoder = Decoder.of(model)._replace(
        logits=lambda hidden: model.lm_head(hidden)[..., :words].float(),
        log_norm=lambda hidden: model.lm_head(hidden)[..., :words].float().logsumexp(-1),
    )
    (target,) = json.loads(row["metadata"])["target_item_ids"]
    levels = [torch.arange(first, last + 1) for first, last in vocabulary.level_ranges]
    for n in range(thoughts):
        numbers = uniforms(5 + n, [key_of(prompt[0])], TOKENS)
        prefix = read(decoder, prompt, torch.ones_like(prompt))
        _, thought = think(decoder, prefix, numbers, end, stops, Sampling(1.0, 20, 0.95))
        said = thought.token_ids[0][thought.real[0]]
        behind = ("" if thought.ended[0] else "\n</think>") + f"\n\n{codec.begin}"
        behind = tokenizer(behind, add_special_tokens=False, return_tensors="pt").input_ids[0]
        text = torch.cat([prompt[0], said, behind])[None]
        beams = beam_search(decoder, trie, levels, text, torch.ones_like(text), BEAMS)
        answers = [tuple(trie.ids()[leaf]) for leaf in beams.leaves[0].tolist()]
        if tuple(ids.codes[ids.item_ids.index(target)]) in answers:
            return True
    return False


def test_a_thought_stays_where_the_model_finds_the_item_behind_its_own_thoughts(folder, kept):
    model = AutoModelForCausalLM.from_pretrained(folder / "llm").eval()
    tokenizer, ids = load_tokenizer(folder / "llm", "--model_dir"), SemanticIds.load(folder / "sid.json")
    before, after = rows_of(folder / "samples", TASK), rows_of(kept, TASK)
    stays = [one == other for one, other in zip(before, after, strict=True)]
    assert 10 < sum(stays) < len(stays) - 10
    told = json.loads((kept / "facts.json").read_text())["thoughts"]

    def slow(n, thoughts):
        return slow_find(folder, model, tokenizer, ids, before[n], thoughts)

    staying = [n for n, stay in enumerate(stays) if stay]
    later = [n for n in staying if not slow(n, 1)]
    assert told["kept_by_thought"] == [len(staying) - len(later), len(later)] and later
    assert all(slow(n, 2) for n in later)
    assert not any(slow(n, 2) for n in [n for n, stay in enumerate(stays) if not stay][::6])
    assert (told["kept"], told["emptied"]) == (sum(stays), len(stays) - sum(stays))
    assert [one["different"] for one in told["told"]] == [len(stays), len(stays) - told["kept_by_thought"][0]]


def test_all_else_is_as_it_was_and_an_emptied_thought_is_asked_for_with_no_think(folder, kept):
    before, after = rows_of(folder / "samples", TASK), rows_of(kept, TASK)
    renderer = Renderer(load_tokenizer(folder / "llm", "--model_dir"), add_think_pattern=True)
    emptied = 0
    for one, other in zip(before, after, strict=True):
        assert [one[name] for name in one if name != "messages"] == [
            other[name] for name in one if name != "messages"
        ]
        *asked, answer = json.loads(one["messages"])
        *asked_now, answer_now = json.loads(other["messages"])
        text = renderer.text(Sample("u", "s", (*asked_now, answer_now), None))[0]
        assert asked == asked_now and ("/no_think" in text) == (one != other)
        if one != other:
            emptied += 1
            assert answer_now["content"] == THINK_EMPTY + answer["content"].partition("</think>\n")[2]
            assert "likely to buy" in answer["content"] and "likely to buy" not in text
    assert emptied
    files = files_of(folder / "samples"), files_of(kept)
    assert files[0].keys() == files[1].keys()
    for name, content in files[0].items():
        if name != "facts.json" and not name.startswith(TASK):
            assert files[1][name] == content
    facts = [json.loads(found["facts.json"]) for found in files]
    assert facts[1].pop("thoughts")["left_as_they_were"] == {
        "no thought in front of the answer": len(rows_of(folder / "samples", "sid_prediction"))
    }
    assert facts[0] == facts[1] and not any("general" in name for name in files[1])


def test_two_ranks_and_other_batches_write_the_same_bytes(folder, kept, alone):
    keep_thoughts.main(flags(folder, output_dir=folder / "small", eval_batch_size=7))
    assert files_of(folder / "small") == files_of(kept)
    result = deepspeed(
        2, ROOT / "scripts/keep_thoughts.py", *flags(folder, output_dir=folder / "two", eval_batch_size=16)
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert files_of(folder / "two") == files_of(kept)
    share = json.loads((kept / "facts.json").read_text())["thoughts"]
    assert f"thoughts kept: {share['kept']:,} of" in result.stdout


def test_whoever_names_all_items_keeps_all_thoughts_to_the_byte(folder, alone, demo_config, capsys):
    keep_thoughts.main(flags(folder, output_dir=folder / "all", num_beams=1000, thoughts=1))
    assert f"{len(SemanticIds.load(folder / 'sid.json').item_ids):,} items" in capsys.readouterr().out
    files = files_of(folder / "samples"), files_of(folder / "all")
    assert all(files[1][name] == content for name, content in files[0].items() if name != "facts.json")
    # Of all ids those of the interactions alone.
    ids = SemanticIds.load(folder / "sid.json")
    wider = SemanticIds([*ids.item_ids, "new"], ids.codes[[*range(len(ids.codes)), 0]], ids.codebook_sizes)
    wider.save(folder / "wider.json")
    tables = {"interaction_data": demo_config.interaction_data, "cache_dir": demo_config.cache_dir}
    more = {"semantic_ids": folder / "wider.json", "thoughts": 1, "num_beams": 1000, "overwrite": True}
    for given, items in ((tables, len(ids.item_ids)), ({}, len(ids.item_ids) + 1)):
        keep_thoughts.main(flags(folder, output_dir=folder / "all", **more, **given))
        assert f"with a thought, {items:,} items" in capsys.readouterr().out


def test_answers_without_metadata_say_their_item_and_those_of_words_are_left(folder, alone, tmp_path, capsys):
    """Also where the files are not ours: other columns, messages as lists."""
    rows = rows_of(folder / "samples", TASK)[:6]
    chats = [json.loads(row["messages"]) for row in rows]
    chats[0][-1]["content"] = "<think>\nso it is\n</think>\na good one"
    chats[1][-1]["content"] = THINK_EMPTY + chats[1][-1]["content"].partition("</think>\n")[2]
    table = {"uuid": [row["uuid"] for row in rows], "source": ["a"] * 6, "messages": chats, "other": [1] * 6}
    parquet.write_table(pyarrow.table(table), tmp_path / "mine.parquet", row_group_size=4)
    settings = {"sources": "mine.parquet", "add_think_pattern": True}
    (tmp_path / "dataset.json").write_text(json.dumps(settings))
    keep_thoughts.main(flags(folder, samples=tmp_path, output_dir=tmp_path.with_name("out")))
    written = tmp_path.with_name("out")
    told = json.loads((written / "facts.json").read_text())["thoughts"]
    assert told["kept"] + told["emptied"] == 4 and set(told["left_as_they_were"].values()) == {1}
    assert "1 (a thought, but the answer begins with no item's id)" in capsys.readouterr().out
    file = parquet.ParquetFile(written / "mine.parquet")
    assert file.num_row_groups == 2 and file.read().column("uuid").to_pylist() == table["uuid"]
    after = [json.loads(text) for text in file.read().column("messages").to_pylist()]
    whole = [json.loads(row["messages"]) for row in rows_of(folder / "kept", TASK)[:6]]
    assert after[:2] == chats[:2] and after[2:] == whole[2:]


@pytest.mark.launch
def test_a_model_that_has_learned_one_epoch_makes_the_samples_of_the_second(folder, kept, tmp_path, alone):
    def train(model_dir, samples, output):
        run = {
            "model_dir": model_dir, "dataset_config": samples / "dataset.json", "output_dir": output,
            "cache_dir": tmp_path / "cache", "bf16": False, "max_steps": 3, "num_warmup_steps": 1,
            "learning_rate": 1e-3, "per_device_train_batch_size": 1,
        }  # fmt: skip
        result = run_command([sys.executable, ROOT / "scripts/train_qwen3.py", *as_flags(run)])
        assert result.returncode == 0, result.stdout + result.stderr
        return output / "best_model/llm"

    first = train(folder / "llm", folder / "samples", tmp_path / "first")
    keep_thoughts.main(flags(folder, model_dir=first, output_dir=tmp_path / "second_samples"))
    stays = json.loads((kept / "facts.json").read_text())["thoughts"]["kept"]
    told = json.loads((tmp_path / "second_samples/facts.json").read_text())["thoughts"]
    assert told["kept"] != stays and told["model_dir"] == str(first)
    second = train(first, tmp_path / "second_samples", tmp_path / "second")
    assert (Path(second) / "model.safetensors").is_file()
