"""DPO: losses by hand, pairs from every form, the very losses of TRL's trainer, and a run that resumes."""

import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, events, run_command
from transformers import AutoModelForCausalLM, AutoTokenizer

from pixelrec_train.config.preferences import DpoConfig
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.samples.cells import Odd, Remarks
from pixelrec_train.data.texts.preferences import pair
from pixelrec_train.data.texts.reading import Place
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.losses.preference import preference_loss
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.trainings import train_preferences

PLACE = Place(ROOT / "a.jsonl", "line", 1)
ROWS = [
    {"prompt": f"What is item {n}?", "chosen": f"A whale of {n}.", "rejected": "I do not know, " * (n % 3)}
    for n in range(1, 12)
    if n % 3
]


def test_the_losses_are_their_formulas():
    chosen, rejected = torch.tensor([1.5, -0.25]), torch.tensor([0.5, 0.75])
    for n, h in enumerate((1.0, -1.0)):
        log_s = [-math.log1p(math.exp(-0.3 * h)), -math.log1p(math.exp(0.3 * h))]
        told = {
            ("sigmoid", 0.0): -log_s[0],
            ("sigmoid", 0.1): -0.9 * log_s[0] - 0.1 * log_s[1],
            ("ipo", 0.0): (h - 1 / 0.6) ** 2,
            ("hinge", 0.0): max(0.0, 1 - 0.3 * h),
        }
        for (kind, smoothing), expected in told.items():
            found = preference_loss(chosen, rejected, kind, 0.3, smoothing)
            assert found[n].item() == pytest.approx(expected, abs=1e-6), kind


def messages(*texts):
    roles = ("user", "assistant") * 2
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What?", "chosen": "A.", "rejected": "B."},
        {"question": "What?", "response_chosen": "A.", "response_rejected": "B."},
        {"query": "What?", "answer": "A.", "negative": "B."},
        {"prompt": messages("What?"), "chosen": messages("", "A.")[1:], "rejected": messages("", "B.")[1:]},
        {"prompt": messages("What?"), "chosen": messages("What?", "A."), "rejected": messages("What?", "B.")},
        {"chosen": messages("What?", "A."), "rejected": messages("What?", "B.")},
    ],
)
def test_every_form_is_the_same_pair(row):
    better, worse = pair(PLACE, row, Remarks())
    assert list(better.messages) == messages("What?", "A.") and list(worse.messages) == messages(
        "What?", "B."
    )


@pytest.mark.parametrize(
    "row, says",
    [
        ("words", "no pair of answers"),
        ({"prompt": "x", "chosen": "a"}, "it has no rejected"),
        ({"prompt": "x", "rejected": "a"}, "it has no chosen"),
        ({"prompt": "x", "chosen": "", "rejected": "a"}, "it has no chosen"),
        ({"chosen": "a", "rejected": "b"}, "it has no prompt"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "it has no prompt"),
        ({"prompt": "x", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
        ({"prompt": "x", "chosen": 3, "rejected": "a"}, "an answer is neither"),
        ({"prompt": 3, "chosen": "b", "rejected": "a"}, "prompt is neither a text nor messages"),
        ({"prompt": "x", "chosen": "  ", "rejected": "a"}, "nobody answers|does not end with words"),
        ({"chosen": messages("x", "a"), "rejected": messages("y", "a")}, "answer different chats"),
        ({"chosen": messages("x", "a", "b"), "rejected": messages("x", "a", "c")}, "does not end with words"),
        ({"prompt": "x", "chosen": "\ud800", "rejected": "a"}, "surrogate"),
        ([1], "no object"),
    ],
)
def test_what_is_no_pair_says_why(row, says):
    with pytest.raises(Odd) as odd:
        pair(PLACE, row, Remarks())
    assert re.search(says, odd.value.args[0])


@pytest.mark.parametrize(
    "words, says",
    [
        ("--beta 0", "--beta must be a positive number"),
        ("--loss_type kto", "--loss_type must be one of sigmoid, ipo, hinge"),
        ("--label_smoothing 0.5", r"--label_smoothing must be in \[0, 0.5\)"),
        ("--label_smoothing 0.1 --loss_type ipo", "is for --loss_type sigmoid, not ipo"),
        ("--best_by accuracy", "--best_by accuracy needs --eval_file"),
        ("--lora_dropout 0.3", "says nothing without --lora_r"),
    ],
)
def test_flags_that_contradict(words, says):
    with pytest.raises(InputError, match=says):
        parse_args(DpoConfig, ["--model_dir", "m", "--train_file", "a", *words.split()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """lm, pairs.jsonl, held_out.jsonl, and a template in which nothing stands behind an answer's end."""
    folder = tmp_path_factory.mktemp("dpo")
    texts = [text for row in ROWS for text in row.values()]
    path = write_causal_lm(texts, folder / "lm", 32, 1, chat=True)
    model = AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(
        len(AutoTokenizer.from_pretrained(path))
    )  # all rows are words': TRL scores all
    model.save_pretrained(path)
    for name, rows in (("pairs", ROWS[:6]), ("held_out", ROWS[6:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    around = {f"{role}_prefix": f"<|im_start|>{role}\n" for role in ("user", "assistant")}
    around |= {f"{role}_suffix": "<|im_end|>" for role in ("user", "assistant")}
    (folder / "template.json").write_text(json.dumps(around))
    return folder


def config_of(folder, *words):
    files = ["--train_file", str(folder / "pairs.jsonl"), "--eval_file", str(folder / "held_out.jsonl")]
    places = ["--model_dir", str(folder / "lm"), "--template", str(folder / "template.json")]
    here = ["--cache_dir", str(folder / "cache"), "--bf16", "False", "--dataloader_num_workers", "0"]
    return parse_args(DpoConfig, [*files, *places, *here, "--per_device_train_batch_size", "6", *words])


def first_batch(task, pairs):
    pairs.collator.reference = None
    everything = pairs.collator([pairs.dataset[Slot(0, k, k)] for k in range(len(pairs.dataset))])
    pairs.collator.reference = task.eval().reference([everything], len(pairs.dataset))
    return pairs.collator([pairs.dataset[Slot(0, k, k)] for k in range(len(pairs.dataset))])


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "hinge"])
def test_ten_steps_are_those_of_trls_trainer(folder, tmp_path, kind):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset
    from transformers import TrainerCallback

    config = config_of(folder, "--loss_type", kind, "--beta", "0.3")
    task, (pairs, _), *_ = train_preferences.prepare(config, 1)
    batch = first_batch(task, pairs)
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3, weight_decay=0.0)
    ours = []
    for _ in range(10):
        loss, metrics = task(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        told = {name: (value[0] / value[1]).item() for name, value in metrics.items()}
        ours.append({"loss": loss.item()} | told)
    tokenizer = AutoTokenizer.from_pretrained(folder / "lm")
    tokenizer.chat_template = task.beside["chat_template.jinja"]
    model = AutoModelForCausalLM.from_pretrained(folder / "lm")
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in ROWS[:6]
    ]
    theirs = []

    class Keep(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                theirs.append(logs)

    settings = trl.DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=6, max_steps=10, learning_rate=2e-3,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, logging_steps=1, beta=0.3,
        loss_type=[kind], bf16=False, report_to=[], use_cpu=True,
        save_strategy="no", max_length=None, optim="adamw_torch", disable_tqdm=True, warmup_steps=0,
    )  # fmt: skip
    data = Dataset.from_list(rows)
    trl.DPOTrainer(
        model, args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[Keep()]
    ).train()
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in mine if kind != "ipo" else ("loss",):  # of ipo it shows rewards of whole answers
            value = mine[name]
            assert other[name] == pytest.approx(value, rel=2e-3, abs=2e-4), (step, name)


def test_a_pair_weighs_what_its_answers_words_say(folder):
    config = config_of(folder, "--length_normalised", "False")
    task, (pairs, held_out), _, lines = train_preferences.prepare(config, 1)
    batch = first_batch(task, pairs)
    plain = AutoModelForCausalLM.from_pretrained(folder / "lm").eval()
    words = len(task.model.embedding.old_rows)
    for k, row in enumerate(ROWS[:6]):
        for side, name in enumerate(("chosen", "rejected")):
            ids, is_label = pairs.dataset[Slot(0, 0, k)][1][side]
            ids = torch.from_numpy(ids.astype(np.int64))
            with torch.no_grad():
                scores = plain(ids[None]).logits[0, :, :words].log_softmax(-1)
            expected = sum(scores[t - 1, ids[t]].item() for t in np.flatnonzero(is_label))
            assert batch.reference[k, side].item() == pytest.approx(expected, rel=1e-4), row[name]
    loss, metrics = task(batch)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)  # before training all ratios are 0
    assert "pairs: 6 of --train_file" in lines
    empty = pairs.collator([None])
    loss, metrics = task(empty)
    loss.backward()
    assert loss.item() == 0 and empty.num_pairs == 0 and metrics["rewards/margins"][1] == 0


@pytest.mark.launch
def test_a_killed_run_goes_on_to_the_bit_and_needs_its_reference(folder, tmp_path):
    words = (
        f"--model_dir {folder}/lm --template {folder}/template.json --train_file {folder}/pairs.jsonl "
        f"--eval_file {folder}/held_out.jsonl --bf16 False --dataloader_num_workers 0 --learning_rate 1e-2 "
        "--per_device_train_batch_size 2 --num_train_epochs 4 --logging_steps 1 --lora_r 4 --cache_dir cache "
        "--save_total_limit 9 --logging_dir log"
    ).split()
    script, whole, cut = ROOT / "scripts/train_dpo.py", tmp_path / "whole", tmp_path / "cut"
    result = run_command([sys.executable, script, *words, "--output_dir", whole], cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    evaluations = events(whole, "eval")
    assert evaluations[-1]["valid_loss"] < math.log(2) and 0 <= evaluations[-1]["accuracy"] <= 1
    shutil.copytree(whole, cut, symlinks=True)
    for name in ("checkpoint-epoch-3", "checkpoint-epoch-4", "best_model"):
        shutil.rmtree(cut / name, ignore_errors=True)
    (cut / "table.json").unlink()
    again = [sys.executable, script, *words, "--output_dir", cut, "--resume", "auto"]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    lost = run_command(again, cwd=tmp_path)
    assert lost.returncode == 2 and "the model is trained already" in lost.stdout + lost.stderr
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "elsewhere").rename(tmp_path / "cache")
    result = run_command(again, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    losses = [{event["step"]: event["loss"] for event in events(run, "step")} for run in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    assert (whole / "best_model/adapter/adapter_config.json").is_file()
