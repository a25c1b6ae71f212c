"""Pairs for DPO from interactions: hard, popular and near negatives, and a run that learns from them."""

import json
import sys

import numpy as np
import pytest
from conftest import ROOT, as_flags, events, run_command
from test_generative import generative  # noqa: F401

from pixelrec_train.commands import build_preferences as command
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.model.chat_template import CHAT_TEMPLATES
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.run import rendezvous
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.trainings.build_preferences import Others, families


@pytest.fixture(scope="module", autouse=True)
def alone():
    """No ranks meet: what they leave in the environment is there for the tests behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)
        yield


@pytest.fixture(scope="module")
def built(generative):  # noqa: F811
    """(folder, {flag: value}) of the data, with pairs/ built."""
    folder, given = generative
    names = ("interaction_data", "semantic_ids", "model_dir", "cache_dir")
    flags = {name: given[name] for name in names} | {"history": 5}
    flags |= {"prompts_per_user": 2, "num_beams": 8, "valid_share": 0.2}
    command.main(as_flags(flags | {"output_dir": folder / "pairs"}))
    return folder, flags


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_are_of_all_kinds_and_hold_what_they_say(built):
    folder, flags = built
    facts = json.loads((folder / "pairs/facts.json").read_text())
    pairs, held_out = rows(folder / "pairs/pairs.jsonl"), rows(folder / "pairs/held_out_pairs.jsonl")
    assert (facts["pairs"], facts["held_out_pairs"]) == (len(pairs), len(held_out))
    assert set(facts["rejected"]) == {"beams", "popular", "prefix"} and held_out
    assert not {row["prompt"] for row in pairs} & {row["prompt"] for row in held_out}
    ids = SemanticIds.load(flags["semantic_ids"])
    spelled = {CODECS["onerec"].text(row, ids.codebook_sizes) for row in ids.codes.tolist()}
    seen = set()
    for row in pairs + held_out:
        assert {row["chosen"], row["rejected"]} <= spelled and row["chosen"] != row["rejected"]
        assert row["rejected"] not in row["prompt"] and row["prompt"].count("<|sid_begin|>") <= 5
        key = row["prompt"], row["chosen"], row["rejected"]
        assert key not in seen
        seen.add(key)
    first = [row for row in pairs if row["prompt"] == pairs[0]["prompt"]]
    assert len({row["source"] for row in first}) == len(first)  # the kinds in turn
    near = [row for row in pairs if row["source"] == "prefix"]
    mark = len("<|sid_begin|><s_a_")
    assert all(row["chosen"][: mark + 1] == row["rejected"][: mark + 1] for row in near)


def test_beams_are_what_stands_above_the_target_and_families_share_codes():
    codes = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]])
    (family,) = families(codes)
    assert family.tolist() == [0, 0, 0, 1, 1]
    others = Others.__new__(Others)
    others.kinds, others.wanted, others.families = ("beams", "prefix"), 4, [family]
    others.trie = type("Trie", (), {"leaf_of": np.arange(5)})
    rng, named = np.random.default_rng(0), np.array([3, 4, 1, 0])
    found = others.of(1, np.array([4]), named, rng)
    assert found[0] == (3, "beams") and set(found[1:]) == {(0, "prefix"), (2, "prefix")}
    assert others.of(2, np.array([4]), named, rng)[0] == (3, "beams")  # not named: all of them are above
    assert [leaf for leaf, kind in others.of(3, np.array([4]), named, rng) if kind == "beams"] == []


def test_chats_are_asked_as_in_evaluation(built, capsys):
    folder, flags = built
    words = as_flags(flags | {"prompt": "chat", "question": "sid_history_to_sid", "rejected": "popular"})
    with pytest.raises(SystemExit):
        command.main([*words, "--output_dir", str(folder / "chats")])
    assert (
        "has no chat template, so it cannot be asked in a chat. Use --prompt history"
        in capsys.readouterr().err
    )
    template = folder / "llm/chat_template.jinja"
    template.write_text(CHAT_TEMPLATES["minionerec"])
    command.main([*words, "--output_dir", str(folder / "chats")])
    template.unlink()
    row = rows(folder / "chats/pairs.jsonl")[0]
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert "in chronological order" in row["prompt"][1]["content"]


@pytest.mark.launch
def test_dpo_learns_from_them_and_is_judged_by_its_ranking(built):
    folder, flags = built
    names = ("interaction_data", "semantic_ids", "model_dir", "cache_dir", "history")
    own = {name: flags[name] for name in names} | {
        "train_file": folder / "pairs/pairs.jsonl", "eval_file": folder / "pairs/held_out_pairs.jsonl",
        "as_text": True, "bf16": False, "dataloader_num_workers": 0, "max_steps": 10, "eval_steps": 5,
        "learning_rate": 3e-3, "per_device_train_batch_size": 16, "logging_steps": 5, "num_beams": 20,
        "output_dir": folder / "dpo", "logging_dir": folder / "logs/dpo", "valid_users": 30,
    }  # fmt: skip
    result = run_command([sys.executable, ROOT / "scripts/train_dpo.py", *as_flags(own)])
    assert result.returncode == 0, result.stdout + result.stderr
    evaluations = events(folder / "dpo", "eval")
    assert [e["step"] for e in evaluations] == [0, 5, 10]
    assert evaluations[-1]["valid_loss"] < evaluations[0]["valid_loss"] and "ndcg@10" in evaluations[0]
    table = json.loads((folder / "dpo/table.json").read_text())
    assert (
        list(table) == ["popularity", "sft", "dpo"] and table["dpo"]["ndcg@10_against"]["baseline"] == "sft"
    )
    assert ItemicVocabulary.load(folder / "dpo/best_model/llm").levels == 3
    assert (folder / "dpo/best_model/semantic_ids.json").is_file()


@pytest.mark.parametrize(
    "words, says",
    [
        ("--rejected random", "--rejected names some of beams, popular, prefix"),
        ("--rejected beams,beams", "must name each only once"),
        ("--pairs_per_prompt 0", "--pairs_per_prompt must be at least 1"),
        ("--valid_share 1", r"--valid_share must be in \[0, 1\)"),
        ("--num_beams 0", "--num_beams must be at least 1"),
        ("--keep_seen", "--keep_seen judges lists"),
        ("--question sid_history_to_sid", "is for chats"),
        ("--prompt text", "--prompt must be history or chat"),
    ],
)
def test_flags_that_cannot_be(words, says):
    needed = "--model_dir m --semantic_ids s --interaction_data i --output_dir o".split()
    with pytest.raises(InputError, match=says):
        parse_args(command.BuildPreferencesConfig, [*needed, *words.split()])


def test_what_is_there_is_not_replaced_unasked(built, capsys):
    folder, flags = built
    with pytest.raises(SystemExit):
        command.main(as_flags(flags | {"output_dir": folder / "pairs"}))
    assert "already holds preferences" in capsys.readouterr().err
