"""GRPO and PPO from the command line: the gate, resuming to the bit, ranks and stages that train the same."""

import json
import re
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed, events, run_command
from safetensors.torch import load_file
from test_generative import generative  # noqa: F401

from pixelrec_train.config.policy import GrpoConfig, PpoConfig
from pixelrec_train.data.loader import Slot
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.model.chat_template import CHAT_TEMPLATES
from pixelrec_train.model.sasrec_model import SASRecModel
from pixelrec_train.trainings import train_policy

pytestmark = pytest.mark.launch
ZERO3 = str(ROOT / "configs/ds_config_zero3.json")
SYNCED = {"ref_model_sync_steps": 2, "num_iterations": 2, "steps_per_generation": 2, "save_steps": 1}
PPO = {"num_generations": 3, "save_steps": 1}


@pytest.fixture(scope="module")
def flags(generative):  # noqa: F811
    """(folder, {flag: value}) of a run of 6 steps on 8 prompts each."""
    folder, given = generative
    names = ("interaction_data", "semantic_ids", "model_dir", "bf16", "num_beams", "cache_dir")
    own = {
        "history": 5, "per_device_train_batch_size": 8, "max_steps": 6, "num_generations": 4,
        "learning_rate": 1e-2, "dataloader_num_workers": 0, "logging_steps": 1, "topk": "5,10",
        "save_total_limit": 50, "valid_users": 30, "patience": None, "prompts_per_user": 2, "beta": 0.05,
        "reward_funcs": "rule,popularity", "reward_weights": "1,0.5",
    }  # fmt: skip
    return folder, {name: given[name] for name in names} | own


def launch(flags, kind, name, ranks=1, fails=False, **changes):
    """A run directory; or what a run says that fails."""
    folder, own = flags
    here = {"output_dir": folder / name, "logging_dir": folder / f"logs/{name}"}
    command = [ROOT / f"scripts/train_{kind}.py", *as_flags(own | here | changes)]
    result = deepspeed(ranks, *command) if ranks > 1 else run_command([sys.executable, *command])
    assert (result.returncode != 0) == fails, result.stdout + result.stderr
    return result.stdout + result.stderr if fails else folder / name


@pytest.fixture(scope="module")
def runs(flags):
    start = partial(launch, flags)
    return {
        "grpo": start("grpo", "grpo"), "ppo": start("ppo", "ppo", **PPO),
        "synced": start("grpo", "synced", **SYNCED),
        "two": start("grpo", "two", ranks=2, per_device_train_batch_size=4, deepspeed=ZERO3),
    }  # fmt: skip


def told(run):
    """{step: what was logged of it, but for times}"""
    timed = re.compile("_per_s|_ms|eta|memory|wait|mfu|time")
    return {e["step"]: {k: v for k, v in e.items() if not timed.search(k)} for e in events(run, "step")}


def weights(checkpoint):
    return load_file(checkpoint / "llm/model.safetensors")


def test_sft_is_judged_first_and_its_rows_stand_beside(runs):
    for name in ("grpo", "ppo"):
        run, first, *_ = runs[name], *events(runs[name], "eval")
        assert first["step"] == 0 and (run / "checkpoint-epoch-0/llm/model.safetensors").is_file()
        table = json.loads((run / "table.json").read_text())
        assert list(table) == ["popularity", "sft", name]
        against = table[name]["ndcg@10_against"]
        assert against["baseline"] == "sft" and 0 < against["p"] <= 1
        steps = told(run)
        assert len(steps) == 6
        wanted = {"reward", "hits", "kl", "entropy", "no_signal", "distinct"}
        for step in steps.values():
            assert wanted <= step.keys() and 0 <= step["hits"] <= 1 and step["kl"] >= 0
        assert steps[1]["kl"] == pytest.approx(0, abs=1e-6) and steps[6]["kl"] > 1e-6


def test_best_model_is_what_sft_made_where_nothing_is_better(flags):
    run = launch(flags, "grpo", "worse", learning_rate=1.0, max_steps=2, eval_steps=1, patience=1, beta=0.0)
    evaluations = events(run, "eval")
    assert [e["step"] for e in evaluations] == [0, 1] and evaluations[1]["ndcg@10"] <= evaluations[0][
        "ndcg@10"
    ]
    ours, theirs = weights(run / "best_model"), load_file(f"{flags[1]['model_dir']}/model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    table = json.loads((run / "table.json").read_text())
    assert table["grpo"]["ndcg@10"] == table["sft"]["ndcg@10"]
    assert "no evaluation was better than SFT's" in (run / "table.md").read_text()


@pytest.mark.parametrize("name, more", [("synced", SYNCED), ("ppo", PPO)])
def test_a_killed_run_goes_on_to_the_bit_in_the_middle_of_a_round(flags, runs, name, more):
    whole, cut = runs[name], runs[name].with_name(f"{name} cut")
    shutil.copytree(whole, cut, symlinks=True)
    for checkpoint in cut.glob("checkpoint-*"):
        if checkpoint.name not in ("checkpoint-epoch-0", "checkpoint-step-3"):
            shutil.rmtree(checkpoint)
    shutil.rmtree(cut / "best_model")
    (cut / "table.json").unlink()
    launch(flags, "ppo" if name == "ppo" else "grpo", cut.name, resume="auto", **more)
    assert told(whole) == told(cut)
    last = [weights(run / "checkpoint-epoch-1") for run in (whole, cut)]
    assert all(torch.equal(last[0][n], last[1][n]) for n in last[0])
    if name == "synced":
        references = [load_file(run / "checkpoint-epoch-1/reference.safetensors") for run in (whole, cut)]
        assert all(torch.equal(references[0][n], references[1][n]) for n in references[0])
        assert "embedding.new_rows" in references[0]


def test_in_the_middle_of_a_round_as_many_ranks_are_needed(flags, runs):
    cut = runs["synced"].with_name("other ranks")
    shutil.copytree(runs["synced"], cut, symlinks=True)
    (cut / "table.json").unlink()
    more = SYNCED | {"per_device_train_batch_size": 4, "resume": cut / "checkpoint-step-3"}
    said = launch(flags, "grpo", cut.name, ranks=2, fails=True, **more)
    assert "with as many ranks as before" in said


def test_two_ranks_with_zero3_train_as_one(runs):
    one, two = told(runs["grpo"]), told(runs["two"])
    assert one.keys() == two.keys()
    for step in one:
        for name in ("reward", "hits", "no_signal", "kl", "entropy", "grad_norm"):
            assert two[step][name] == pytest.approx(one[step][name], rel=1e-5, abs=1e-5), (step, name)
    ours, theirs = weights(runs["grpo"] / "checkpoint-epoch-1"), weights(runs["two"] / "checkpoint-epoch-1")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


def prepared(flags, *words, kind=GrpoConfig):
    folder, own = flags
    own = own | {"output_dir": folder / "unused", "logging_dir": folder / "logs/unused"}
    config = parse_args(kind, [*as_flags(own), *words])
    return train_policy.Prepared(config, "ppo" if kind is PpoConfig else "grpo", 1)


def test_prompts_are_those_of_evaluation_byte_for_byte(flags):
    """A user's newest training item, asked for, is asked as if it were held out."""
    from pixelrec_train.trainings.asking import prompts

    folder, own = flags
    chatty = shutil.copytree(own["model_dir"], folder / "chatty", dirs_exist_ok=True)
    (chatty / "chat_template.jinja").write_text(CHAT_TEMPLATES["minionerec"])
    chat = ("--question", "sid_history_to_sid", "--model_dir", str(chatty))
    for form, words in (("history", ()), ("chat", chat)):
        ready = prepared(flags, "--prompt", form, *words)
        asked = ready.asked
        users, part = asked.users, ready.prompts.part
        says = prompts(ready.catalogue, asked.speaker, form, users._replace(part=part), asked.asking)
        held = users.held_out
        for e in (0, 7, 29):
            s = int(np.flatnonzero(np.array(part.keys)[:, 0] == str(users.part.keys[users.numbers[e]][0]))[0])
            history = held.history(e)
            assert np.array_equal(part.items[part.start[s] : part.end[s]], history)
            stretch = part.stretch(s, max(int(part.start[s]), int(part.end[s]) - 5), int(part.end[s]), 0)
            assert torch.equal(ready.prompts.say(stretch), says_of(says, users, e, form, s))


def says_of(says, users, e, form, s):
    return says(e) if form == "history" else says_numbered(says, users, e, s)


def says_numbered(says, users, e, s):
    users.numbers[e] = s  # its number in the part of training
    return says(e)


def test_a_group_without_signal_is_left_out_and_counted(flags):
    ready = prepared(flags, "--reward_funcs", "rule", "--reward_weights", "none", "--rollout", "beam")
    samples = [ready.prompts[Slot(0, n, n)] for n in range(8)]
    leaf = ready.catalogue.trie.leaf_of[[p.target for p in samples]]
    leaves = np.stack([(leaf + n) % ready.catalogue.trie.num_leaves for n in (1, 2, 3, 4)], 1)
    leaves[3, 2] = leaf[3]
    batch = ready.source.batch(samples, leaves)
    assert batch.rollouts == 4 and batch.figures["no_signal"] == (7.0, 8.0)
    assert batch.figures["hits"] == (1.0, 8.0) and batch.figures["reward/rule"] == (1.0, 32.0)
    assert batch.credit.argmax() == 2 and batch.credit.sum().abs() < 1e-6
    assert batch.tokens.texts.token_ids[: len(samples[3].token_ids)].tolist() == samples[3].token_ids.tolist()


@pytest.mark.parametrize(
    "kind, words, says",
    [
        (GrpoConfig, "--num_generations 1", "--num_generations must be at least 2"),
        (GrpoConfig, "--num_generations 0", "--num_generations must be at least 1"),
        (GrpoConfig, "--rollout best", "--rollout must be one of distinct, sample, beam"),
        (GrpoConfig, "--rollout beam --temperature 2", "--temperature 2.0 is for what is drawn"),
        (GrpoConfig, "--temperature 0", "--temperature must be a positive number"),
        (GrpoConfig, "--loss_type dpo", "--loss_type must be one of grpo, dapo, gspo, dr_grpo"),
        (GrpoConfig, "--beta -1", "--beta must be a number that is not negative"),
        (GrpoConfig, "--beta 0 --ref_model_sync_steps 5", "with --beta 0 there is none"),
        (GrpoConfig, "--lora_r 4 --ref_model_sync_steps 5", "adapters have no counterpart"),
        (GrpoConfig, "--ref_model_mixup_alpha 0", r"--ref_model_mixup_alpha must be in \(0, 1\]"),
        (GrpoConfig, "--epsilon 1", r"--epsilon must be in \(0, 1\)"),
        (GrpoConfig, "--epsilon_high 0", "--epsilon_high must be None or a positive number"),
        (
            GrpoConfig,
            "--gradient_accumulation_steps 2 --steps_per_generation 3",
            "--steps_per_generation 3 micro-batches are no whole steps",
        ),
        (GrpoConfig, "--num_iterations 0", "--num_iterations must be at least 1"),
        (GrpoConfig, "--topk 5", "--topk must contain 10"),
        (GrpoConfig, "--question sid_history_to_sid", "is for chats, but none is asked"),
        (GrpoConfig, "--prompt think", "--prompt must be history or chat"),
        (GrpoConfig, "--prompts_per_user 0", "--prompts_per_user must be None or at least 1"),
        (GrpoConfig, "--reward_funcs collaborative", "--reward_sasrec go together"),
        (GrpoConfig, "--reward_weights 1,2", "are 2 numbers for the 1 rewards"),
        (PpoConfig, "--gamma 0", r"--gamma must be in \(0, 1\]"),
        (PpoConfig, "--lam 1.5", r"--lam must be in \(0, 1\]"),
        (PpoConfig, "--cliprange_value 0", "--cliprange_value must be a positive number"),
        (PpoConfig, "--vf_coef -1", "--vf_coef must be a number that is not negative"),
        (PpoConfig, "--loss_type dapo", "--loss_type"),
    ],
)
def test_flags_that_contradict(kind, words, says):
    needed = ["--model_dir", "m", "--semantic_ids", "s", "--interaction_data", "i"]
    with pytest.raises((InputError, SystemExit), match=says):
        parse_args(kind, [*needed, *words.split()])


def refused(flags, says, *words):
    with pytest.raises(InputError, match=says):
        prepared(flags, *words)


def test_inputs_that_cannot_be(flags, tmp_path):
    folder, own = flags
    np.save(tmp_path / "few.npy", np.ones((1, 4), np.float32))
    (tmp_path / "few.txt").write_text("nobody\n")
    few = ("--reward_weights", "none", "--reward_funcs", "semantic", "--reward_matrix", tmp_path / "few.npy")
    refused(flags, "different ids are asked for, but the catalogue has", "--num_generations", "100000")
    refused(flags, "has no itemic tokens|itemic_meta.json", "--model_dir", str(folder / "lm"))
    refused(flags, "share no item", *map(str, few), "--reward_matrix_ids", str(tmp_path / "few.txt"))
    refused(flags, "--best_by loss is no figure", "--best_by", "loss")
    refused(flags, "is no task of scripts/build_samples.py", "--prompt", "chat", "--question", "nothing")
    sasrec = ("--reward_weights", "none", "--reward_funcs", "collaborative", "--reward_sasrec")
    refused(flags, "is not a checkpoint", *sasrec, str(tmp_path))
    refused(flags, "holds no test|nothing to judge|no label", "--split_protocol", "last_item")
    refused(flags, "is a checkpoint. Did you mean", "--model_dir", str(launch_dir(folder)))


def recommender(directory, own, ready, **changes):
    """A directory as scripts/compare.py leaves it for SASRec, with random weights."""
    data = ready.inputs.interactions
    sizes = {"max_seq_length": 6, "hidden_size": 16, "layers": 1, "heads": 1, "dropout": 0.0}
    directory.mkdir(exist_ok=True)
    model = SASRecModel(data.num_items, 5, 16, 1, 1, 0.0)
    model.export(directory, model.state_dict())
    flags = {"interaction_data": own["interaction_data"]} | sizes
    record = {"config": flags, "data": {"interactions": data.fingerprint}} | changes
    (directory / "run.json").write_text(json.dumps(record))
    return model.eval()


def test_rewards_look_things_up_in_files_by_item(flags, tmp_path):
    _, own = flags
    ready = prepared(flags)
    item_ids = ready.inputs.interactions.item_ids
    order = np.random.default_rng(0).permutation(len(item_ids))
    table = np.random.default_rng(1).normal(size=(len(item_ids), 4)).astype(np.float32)
    np.save(tmp_path / "table.npy", table[order])
    (tmp_path / "ids.txt").write_text("".join(f"{item_ids[n]}\n" for n in order))
    sasrec = recommender(tmp_path / "sasrec", own, ready)
    words = (
        "--reward_funcs", "semantic,collaborative", "--reward_weights", "1,0.5",
        "--reward_matrix", tmp_path / "table.npy", "--reward_matrix_ids", tmp_path / "ids.txt",
        "--reward_sasrec", tmp_path / "sasrec",
    )  # fmt: skip
    told = prepared(flags, *map(str, words))
    prompts = [told.prompts[Slot(0, n, n)] for n in range(3)]
    leaves = told.source.answering.draw(prompts)
    total, parts, _ = told.source.answering.judge(prompts, leaves)
    trie, unit = told.catalogue.trie, table / np.linalg.norm(table, axis=1, keepdims=True)
    for b, prompt in enumerate(prompts):
        items = trie.leaf_items[trie.leaf_ptr[leaves[b]]]
        np.testing.assert_allclose(parts["semantic"][b], unit[items] @ unit[prompt.target], atol=1e-6)
        np.testing.assert_allclose(
            parts["collaborative"][b], sasrec.score([prompt.history])[0, items], atol=1e-6
        )
    np.testing.assert_allclose(total, parts["semantic"] + 0.5 * parts["collaborative"], atol=1e-6)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"data": {"interactions": "others"}}, "was trained on other interactions"),
        ({"config": {"split_protocol": "last_item"}}, "may have learned from what is held out"),
        ({"config": {"max_seq_length": 6}}, "is no SASRec that scripts/compare.py has trained"),
    ],
)
def test_a_sasrec_that_cannot_reward_is_refused(flags, changes, says, tmp_path):
    _, own = flags
    ready = prepared(flags)
    if "config" in changes:
        changes = {"config": {"interaction_data": own["interaction_data"]} | changes["config"]}
    recommender(tmp_path / "sasrec", own, ready, **changes)
    words = ("--reward_weights", "none", "--reward_funcs", "collaborative", "--reward_sasrec")
    refused(flags, says, *words, str(tmp_path / "sasrec"))


def launch_dir(folder):
    (folder / "looks like one/llm").mkdir(parents=True, exist_ok=True)
    return folder / "looks like one"
