"""Rewards for free answers: a tiny model learns to say what pays, judged on held-out prompts first."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed, events, run_command
from transformers import AutoModelForSequenceClassification, Qwen3Config

from pixelrec_train.config.preferences import DpoConfig
from pixelrec_train.config.text_policy import TextPolicyConfig
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.samples.cells import Odd
from pixelrec_train.data.texts.prompts import asked, read_prompts
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.model.reward_model import RewardModel
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.rl.texts import TextRewards, is_there, overlap
from pixelrec_train.trainings import train_text_policy

WORDS = "what is the best of times it was the worst of cities".split()


def user(text):
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    "row, messages, answer",
    [
        ({"prompt": "What?", "answer": "A."}, [user("What?")], "A."),
        ({"question": "What?", "response": "A."}, [user("What?")], "A."),
        ({"instruction": "Add.", "input": "1 2", "output": 3}, [user("Add.\n1 2")], "3"),
        ({"prompt": [user("What?")], "ground_truth": "A."}, [user("What?")], "A."),
        ({"messages": [user("What?"), {"role": "assistant", "content": "A."}]}, [user("What?")], "A."),
        (
            {"prompt": "What?", "system": "Be brief."},
            [{"role": "system", "content": "Be brief."}, user("What?")],
            "",
        ),
        ({"prompt": "What?", "chosen": "A.", "rejected": "B."}, [user("What?")], "A."),
    ],
)
def test_every_form_asks_the_same(row, messages, answer):
    assert asked(row) == (messages, answer)


NOTHING = "text", {"answer": "A."}, {"prompt": ""}, {"prompt": [1]}, {"prompt": [{"role": "user"}]}


@pytest.mark.parametrize("row", NOTHING)
def test_what_asks_nothing_is_odd(row):
    with pytest.raises(Odd):
        asked(row)


def test_rewards_by_hand():
    assert is_there("It is  the\nBest.", "the best") == 1 and is_there("best", "the best") == 0 == is_there(
        "a", ""
    )
    assert overlap("a b b c", "b b d") == pytest.approx(2 * 2 / 7) and overlap("", "a") == 0
    prompt = type("Prompt", (), {"target": "b", "messages": [user("q")]})
    rewards = TextRewards(
        {"answer": 1.0, "model": 0.5}, lambda chats: [len(chat[-1]["content"]) for chat in chats]
    )
    total, parts = rewards([prompt, prompt], [["b", "abc"], ["c", "cc"]])
    assert parts["answer"].tolist() == [[1, 1], [0, 0]] and total.tolist() == [[1.5, 2.5], [0.5, 1.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """lm (a tiny chat model), judge (a reward model), train.jsonl, held_out.jsonl."""
    folder = tmp_path_factory.mktemp("text_rl")
    write_causal_lm([" ".join(WORDS)] * 3, folder / "lm", hidden_size=32, chat=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 24), ("held_out", 8)):
        rows = [{"prompt": " ".join(rng.choice(WORDS, 3)), "answer": "best times"} for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = json.loads((folder / "lm/config.json").read_text())
    torch.manual_seed(0)
    judge = AutoModelForSequenceClassification.from_config(Qwen3Config(**settings | {"num_labels": 1}))
    judge.save_pretrained(folder / "judge")
    for file in folder.glob("lm/*"):
        if not (folder / "judge" / file.name).exists() and file.suffix != ".safetensors":
            shutil.copy(file, folder / "judge")
    return folder


def flags_of(folder, name, **changes):
    return {
        "model_dir": folder / "lm", "train_file": folder / "train.jsonl",
        "eval_file": folder / "held_out.jsonl",
        "bf16": False, "dataloader_num_workers": 0, "per_device_train_batch_size": 8, "num_train_epochs": 4,
        "learning_rate": 1e-2, "max_response_length": 6, "num_generations": 8, "logging_steps": 1,
        "save_total_limit": 9, "cache_dir": folder / "cache", "output_dir": folder / name,
        "logging_dir": folder / f"logs/{name}", "save_steps": 2,
    } | changes  # fmt: skip


def launch(folder, name, ranks=1, **changes):
    command = [ROOT / "scripts/train_text_rl.py", *as_flags(flags_of(folder, name, **changes))]
    result = deepspeed(2, *command) if ranks == 2 else run_command([sys.executable, *command])
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / name


@pytest.mark.launch
def test_answers_that_pay_become_likelier_and_the_model_before_is_judged_first(folder):
    run = launch(folder, "grpo", reward_model_dir=folder / "judge", beta=0.0)
    evaluations = events(run, "eval")
    assert evaluations[0]["step"] == 0 and len(evaluations) == 5
    assert max(e["valid_reward"] for e in evaluations[1:]) > evaluations[0]["valid_reward"]
    steps = events(run, "step")
    early, late = (np.mean([e["reward"] for e in part]) for part in (steps[:3], steps[-3:]))
    assert late > early
    assert {"entropy", "no_signal", "answer_tokens", "rollouts_per_s"} <= steps[0].keys()
    rows = json.loads((run / "table.json").read_text())
    assert "validation, before training" in rows and (run / "best_model/llm/config.json").is_file()


@pytest.mark.launch
def test_ppo_is_resumed_to_the_bit_and_two_ranks_train_as_one(folder):
    more = {"algorithm": "ppo", "num_iterations": 2, "num_train_epochs": 2, "num_generations": 2}
    whole = launch(folder, "ppo", **more)
    cut = shutil.copytree(whole, folder / "cut", symlinks=True)
    for checkpoint in cut.glob("checkpoint-*"):
        if checkpoint.name not in ("checkpoint-epoch-0", "checkpoint-step-4"):
            shutil.rmtree(checkpoint)
    shutil.rmtree(cut / "best_model")
    (cut / "table.json").unlink()
    launch(folder, "cut", resume="auto", **more)
    two = launch(folder, "two", ranks=2, **more | {"per_device_train_batch_size": 4})
    told = [
        {
            e["step"]: [e[name] for name in ("loss", "grad_norm", "reward", "value_loss")]
            for e in events(run, "step")
        }
        for run in (whole, cut, two)
    ]
    assert len(told[0]) == 12 and told[0] == told[1]
    # Later a rounding may have turned a draw, and all that follows.
    for step, values in list(told[0].items())[:4]:
        assert told[2][step] == pytest.approx(values, rel=1e-3, abs=1e-4), step


def test_a_reward_model_scores_chats_whoever_stands_beside(folder):
    model = RewardModel(folder / "judge", "--reward_model_dir")
    chats = [[user(" ".join(WORDS[:n])), {"role": "assistant", "content": "best"}] for n in (1, 6, 3)]
    together = model(chats)
    assert together == pytest.approx([model([chat])[0] for chat in chats], abs=1e-5)
    assert len(set(together)) == 3
    config = parse_args(
        TextPolicyConfig, as_flags(flags_of(folder, "judged", reward_model_dir=folder / "judge", beta=0.0))
    )
    assert config.weights == {"model": 1.0}
    ready = train_text_policy.Prepared(config, 1)
    prompts = [ready.prompts[Slot(0, n, n)] for n in (0, 1)]
    answers = ready.answering.draw(prompts)
    assert answers.shape == (2, 8, 6)
    alone = ready.answering.draw(prompts[1:])
    assert np.array_equal(alone[0], answers[1])  # whoever shares the batch
    rewards, _, _ = ready.answering.judge(prompts, answers)
    text = ready.answering.texts(answers)[1][3]
    chat = [*prompts[1].messages, {"role": "assistant", "content": text}]
    assert rewards[1, 3] == pytest.approx(model([chat])[0], abs=1e-4)
    with pytest.raises(InputError, match="They would be random"):
        RewardModel(folder / "lm", "--reward_model_dir")


@pytest.mark.parametrize(
    "words, says",
    [
        ("--algorithm dpo", "--algorithm must be grpo or ppo"),
        ("--num_generations 1", "--num_generations must be at least 2"),
        ("--reward_funcs model", "the reward model and --reward_model_dir go together"),
        ("--reward_funcs good", "--reward_funcs names some of answer, overlap, model"),
        ("--reward_weights 1,2", "are 2 numbers for the 1 rewards"),
        ("--vf_coef 1", "--vf_coef is not for --algorithm grpo"),
        ("--algorithm ppo --loss_type dapo", "--loss_type is not for --algorithm ppo"),
        ("--max_prompt_length 0", "--max_prompt_length must be at least 1"),
        ("--max_response_length 0", "--max_response_length must be at least 1"),
        ("--lora_r 4 --load_in_4bit", "answers would be slow"),
        ("--beta 0 --ref_model_sync_steps 4", "with --beta 0 there is none"),
        ("--temperature -1", "--temperature must be a positive number"),
    ],
)
def test_flags_that_contradict(words, says):
    needed = "--model_dir m --train_file a --eval_file b".split()
    with pytest.raises(InputError, match=says):
        parse_args(TextPolicyConfig, [*needed, *words.split()])


def test_held_out_prompts_and_answers_are_needed(folder, tmp_path):
    with pytest.raises(InputError, match="--eval_file is needed"):
        parse_args(TextPolicyConfig, ["--model_dir", "m", "--train_file", "a"])
    (tmp_path / "bare.jsonl").write_text('{"prompt": "What?"}\n{"answer": "A."}\n')
    with pytest.raises(InputError, match="bare.jsonl line 2: it has no prompt"):
        read_prompts([tmp_path / "bare.jsonl"])
    assert read_prompts([tmp_path / "bare.jsonl"], skip_bad=True) == ([([user("What?")], "")], 1)
    config = flags_of(folder, "none", train_file=tmp_path / "bare.jsonl", skip_bad_rows=True)
    with pytest.raises(InputError, match="do not say what the answer should be"):
        train_text_policy.Prepared(parse_args(TextPolicyConfig, as_flags(config)), 1)
    config = flags_of(folder, "none", max_prompt_length=1)
    with pytest.raises(InputError, match="no prompt is left of 24"):
        train_text_policy.Prepared(parse_args(TextPolicyConfig, as_flags(config)), 1)
    config = flags_of(folder, "none", max_response_length=10**6)
    with pytest.raises(InputError, match="tokens together, but the LLM reads"):
        train_text_policy.Prepared(parse_args(TextPolicyConfig, as_flags(config)), 1)


def test_genesis_file_is_read_by_each_command_for_itself(tmp_path):
    (tmp_path / "rlhf.yaml").write_text(
        "model_name_or_path: m\ndata:\n  train_file: a\n  eval_file: b\n  max_prompt_length: 256\n"
        "dpo:\n  beta: 0.3\n  loss_type: ipo\n"
        "ppo:\n  rollout_backend: vllm\n  rollout_n: 6\n  actor_lr: 1.0e-6\n  ppo_mini_batch_size: 256\n"
        "  ppo_micro_batch_size_per_gpu: 2\n  kl_loss_coef: 0.01\n  use_kl_loss: true\n  n_gpus_per_node: 8\n"
    )
    told = ["--config", str(tmp_path / "rlhf.yaml")]
    ours = parse_args(TextPolicyConfig, told)
    assert (ours.num_generations, ours.beta, ours.per_device_train_batch_size) == (6, 0.01, 2)
    assert ours.loss_type == "grpo" and ours.max_prompt_length == 256 and ours.learning_rate == 1e-6
    assert parse_args(TextPolicyConfig, [*told, "--use_kl_loss", "False"]).beta == 0
    (tmp_path / "dpo.yaml").write_text(
        (tmp_path / "rlhf.yaml").read_text().replace("  max_prompt_length: 256\n", "")
    )
    theirs = parse_args(DpoConfig, ["--config", str(tmp_path / "dpo.yaml")])
    assert (theirs.beta, theirs.loss_type) == (0.3, "ipo")
