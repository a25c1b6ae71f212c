"""scripts/train_qwen3.py as OpenOneRec's people call it: any ZeRO stage, any number of ranks, and resumed."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, deepspeed, events, run_command
from safetensors.torch import load_file

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.writing import dataset_config, write_samples
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.vocabulary import ItemicVocabulary

pytestmark = pytest.mark.launch
SCRIPT = ROOT / "scripts/train_qwen3.py"
WORDS = "a tale of two cities and one more the best of times was it".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """llm/, a tiny Qwen3 with itemic tokens and a chat template; samples/ and valid/ of two sources."""
    folder = tmp_path_factory.mktemp("qwen3")
    base = write_causal_lm([" ".join(WORDS)] * 3, folder / "base", hidden_size=32, chat=True)
    expand(base, folder / "llm", "onerec", (4, 6), "mean_cov", 0)
    vocabulary = ItemicVocabulary.load(folder / "llm")
    rng = np.random.default_rng(0)
    for name, count in (("samples", 90), ("valid", 12)):
        (folder / name).mkdir()
        write_samples(folder / name, ((sample(rng, name, n), {}) for n in range(count)), rows_per_file=40)
        settings = dataset_config(128, True, folder / "llm", vocabulary)
        (folder / name / "dataset.json").write_text(json.dumps(settings | {"num_workers": 0}))
    return folder


def sample(rng, name, n):
    def words(most):
        return " ".join(rng.choice(WORDS, rng.integers(1, most)))

    def items(count):
        pairs = rng.integers((4, 6), size=(count, 2))
        return "".join(f"<|sid_begin|><s_a_{a}><s_b_{b}><|sid_end|>" for a, b in pairs)

    if n % 3 == 0:
        return Sample(f"{name}-{n}", "video_rec", None, (items(rng.integers(2, 6)),))
    thought = f"<think>\n{words(5)}\n</think>\n" if n % 2 else ""
    messages = ("user", words(9)), ("assistant", thought + items(1))
    return Sample(f"{name}-{n}", "general", tuple({"role": r, "content": c} for r, c in messages), None)


def flags(folder, output, **more):
    values = {
        "model_dir": folder / "llm", "dataset_config": folder / "samples/dataset.json", "output_dir": output,
        "cache_dir": folder / "cache", "learning_rate": 1e-2, "min_lr": 1e-3, "num_warmup_steps": 2,
        "num_training_steps": 9, "logging_per_step": 1, "bf16": False, "per_device_train_batch_size": 4,
        "monitor_datasource_loss": True, "monitor_datasource_cnt": True, "num_train_epochs": 2,
    }  # fmt: skip
    return [part for name, value in (values | more).items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def runs(folder):
    """{name: run directory} of the same training on one rank and on two, under ZeRO-2 and ZeRO-3."""
    made = {name: folder / name for name in ("one", "two", "two3")}
    valid = {"valid_samples": folder / "valid/file_list.json", "save_checkpoint_per_step": 3}
    commands = [
        run_command([sys.executable, SCRIPT, *flags(folder, made["one"], **valid)]),
        deepspeed(2, SCRIPT, *flags(folder, made["two"], per_device_train_batch_size=2)),
        deepspeed(2, SCRIPT, *flags(folder, made["two3"], per_device_train_batch_size=2),
                  "--reshard_after_forward"),
    ]  # fmt: skip
    for result in commands:
        assert result.returncode == 0, result.stdout + result.stderr
    made["output"] = commands[0].stdout
    return made


FIGURES = ("loss", "grad_norm", "lr", "text_loss", "itemic_loss", "general/loss", "video_rec/loss", "fill",
           "tokens_of/general", "samples_of/video_rec")  # fmt: skip


def test_ranks_and_zero_stages_train_the_same(runs):
    steps = {name: events(runs[name], "step") for name in ("one", "two", "two3")}
    assert len(steps["one"]) > 10 and steps["one"][-1]["loss"] < steps["one"][0]["loss"]
    for name in ("two", "two3"):
        for ours, theirs in zip(steps[name], steps["one"], strict=True):
            for figure in FIGURES:
                assert ours[figure] == pytest.approx(theirs[figure], rel=2e-4, abs=1e-5), (name, figure)


def test_accumulated_micro_batches_train_as_one(folder, runs):
    """Packs differ in their labels: two micro-batches of two packs are one of four, to the label."""
    output = folder / "accumulated"
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4}
    result = run_command([sys.executable, SCRIPT, *flags(folder, output, **parts)])
    assert result.returncode == 0, result.stdout + result.stderr
    for ours, theirs in zip(events(output, "step"), events(runs["one"], "step"), strict=False):
        for figure in ("loss", "grad_norm", "text_loss"):
            assert ours[figure] == pytest.approx(theirs[figure], rel=1e-5), figure


def test_the_learning_rate_stays_while_training_goes_on(runs):
    rates = [event["lr"] for event in events(runs["one"], "step")]
    assert rates[:2] == pytest.approx([5e-3, 1e-2]) and max(rates) == rates[1]
    assert rates[8:] == pytest.approx([1e-3] * len(rates[8:]), abs=1e-12) and len(rates) > 10


def test_the_plan_counts_by_source_and_the_end_is_a_table_of_losses(runs):
    out = runs["output"]
    assert re.search(r"samples: 90 with [\d,]+ tokens, [\d,]+ of them labels: 30 video_rec, 60 general", out)
    assert re.search(r"packs: \d+ of at most 128 tokens in the first epoch \(best_fit\), 9\d\.\d% full", out)
    assert "cut_to_pad" not in out and "TFLOP/s per rank" in out and "labels/s" in out
    table = (runs["one"] / "table.md").read_text()
    assert table.startswith("|") and "valid_loss" in table and "(best_model)" in table and table in out
    assert json.loads((runs["one"] / "table.json").read_text())
    assert (runs["one"] / "curves.png").is_file() and list((runs["one"] / "log").rglob("events.out*"))
    valid = [event["valid_loss"] for event in events(runs["one"], "eval")]
    assert len(valid) == 2 and valid[1] < valid[0]


def test_checkpoints_lie_where_openonerec_has_them(runs):
    steps = sorted(int(path.name.removeprefix("step")) for path in runs["one"].glob("step*"))
    last = events(runs["one"], "step")[-1]["step"]
    assert {3, 6, 9} <= set(steps) and steps[-1] == last
    inside = runs["one"] / f"step{last}/global_step{last}"
    assert {"llm", "optimizer", "manifest.json"} <= {path.name for path in inside.iterdir()}


def test_a_run_goes_on_to_the_bit_by_openonerecs_three_flags(folder, runs):
    """As killed after step 6: what came later is gone, and comes again, equal."""
    killed = folder / "killed"
    shutil.copytree(runs["one"], killed, symlinks=True)
    for path in killed.glob("step*"):
        if int(path.name.removeprefix("step")) > 6:
            shutil.rmtree(path)
    shutil.rmtree(killed / "best_model")
    (killed / "table.json").unlink()
    valid = {"valid_samples": folder / "valid/file_list.json", "save_checkpoint_per_step": 3}
    asked = {"resume_from": killed / "step6", "resume_from_tag": "global_step6"}
    again = flags(folder, killed, **valid, **asked)
    result = run_command([sys.executable, SCRIPT, *again, "--resume_training_state"])
    assert result.returncode == 0, result.stdout + result.stderr
    times = ("_s", "_ms", "_pct", "memory_gb")
    ours, theirs = (
        [{k: v for k, v in event.items() if not k.endswith(times)} for event in events(run, kind)]
        for run in (killed, runs["one"])
        for kind in ("step",)
    )
    assert ours == theirs
    weights = [load_file(run / "best_model/llm/model.safetensors") for run in (killed, runs["one"])]
    assert all(weights[0][name].equal(x) for name, x in weights[1].items())


@pytest.mark.parametrize(
    "key, value, what",
    [("full_attention", True, "full attention"), ("shuffle_seed", 5, "samples")],
    ids=["full_attention", "shuffle_seed"],
)
def test_a_changed_json_is_another_run(folder, runs, key, value, what):
    unfinished, path = folder / f"changed_{key}", folder / "samples/dataset.json"
    shutil.copytree(runs["one"], unfinished, symlinks=True)
    (unfinished / "table.json").unlink()
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {key: value}))
    try:
        again = flags(folder, unfinished, resume="auto", valid_samples=folder / "valid/file_list.json")
        result = run_command([sys.executable, SCRIPT, *again, "--save_checkpoint_per_step", 3])
    finally:
        path.write_text(before)
    assert result.returncode == 2 and f"that was another run (the {what} of the data" in result.stderr


def test_stage_one_moves_the_new_rows_alone(folder):
    output = folder / "stage1"
    more = {"freeze_llm": True, "max_steps": 4, "start_optimize_embedding_index": 0}
    first = ItemicVocabulary.load(folder / "llm").first_new_id
    result = run_command([sys.executable, SCRIPT, *flags(folder, output, **more)])
    assert result.returncode == 0, result.stdout + result.stderr
    after = load_file(output / "best_model/llm/model.safetensors")
    for name, before in load_file(folder / "llm/model.safetensors").items():
        if "embed_tokens" in name:
            assert before[:first].equal(after[name][:first]) and not before[first:].equal(after[name][first:])
        else:
            assert before.equal(after[name]), name


def test_validation_reads_whole_samples_however_training_packs(folder):
    more = {
        "valid_samples": folder / "valid/file_list.json",
        "max_steps": 1,
        "learning_rate": 1e-12,
        "min_lr": 0,
    }
    losses = []
    for pack in ("best_fit", "greedy"):
        result = run_command([sys.executable, SCRIPT, *flags(folder, folder / pack, **more, pack=pack)])
        assert result.returncode == 0, result.stdout + result.stderr
        assert ("are cut in the first epoch" in result.stdout) == (pack == "greedy")
        losses += [event["valid_loss"] for event in events(folder / pack, "eval")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses) == 2


def test_a_plain_causal_lm_learns_text_and_its_last_words_are_losses(folder):
    output = folder / "plain"
    settings = json.loads((folder / "samples/dataset.json").read_text())
    del settings["base_model_dir"], settings["itemic_id_range"]
    (folder / "samples/plain.json").write_text(json.dumps(settings))
    more = {"model_dir": folder / "base", "dataset_config": folder / "samples/plain.json", "max_steps": 3}
    result = run_command([sys.executable, SCRIPT, *flags(folder, output, **more), "--pack", "greedy"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "(greedy)" in result.stdout
    assert "itemic_loss" not in events(output, "step")[-1] and "text_loss" in events(output, "step")[-1]
    assert "training, step 3" in (output / "table.md").read_text()
