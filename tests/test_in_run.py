"""What a training on samples asks at every evaluation: users, with figures so far, and chats, freely."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, deepspeed, events, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_evaluate_qwen3 import flags_of, write_talking_model
from test_train_qwen3 import WORDS, flags
from transformers import AutoModelForCausalLM

from pixelrec_train.config.samples import AskFlags
from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.writing import write_samples
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import progress
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.run.log import RunLog
from pixelrec_train.tasks.tokens import of_samples
from pixelrec_train.trainings import asking
from pixelrec_train.trainings.in_run import ANSWER_TOKENS, AskedInRun, SampleGenerations, chats


@pytest.fixture(scope="module")
def folder(demo_config, tmp_path_factory):
    return write_talking_model(tmp_path_factory.mktemp("in_run"), demo_config)


def session_in(directory):
    """What an evaluator knows of a run: its log, and where it stands."""
    objective = of_samples((), False, ranked=True)
    log = RunLog([directory / "train.log"], directory / "metrics.jsonl", directory / "tb", objective)
    return SimpleNamespace(log=log, state=TrainState(total_steps=9, step=4))


def test_running_figures_of_an_evaluation_reach_log_metrics_and_tensorboard(
    folder, demo_config, tmp_path, monkeypatch
):
    given = flags_of(folder, demo_config)
    config = AskFlags(
        **{name: str(given[name]) for name in ("semantic_ids", "interaction_data", "cache_dir")},
        prompts=("chat",), split="valid", history=8, num_beams=20, eval_batch_size=32, topk=(10,),
    )  # fmt: skip
    model = TokenModel.load(folder / "llm").eval()
    evaluator = AskedInRun(model, folder / "llm", config)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    alone = evaluator()  # outside of a run nobody is told
    evaluator.session = session_in(tmp_path)
    assert evaluator() == alone
    evaluator.session.log.close()
    judged, _ = asking.ask(evaluator.prepared, evaluator.speaker, "chat", evaluator.users, config)
    assert figures(judged.places, (10,)).items() <= alone.items()
    parts = events(tmp_path, "part")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert len(parts) == len(lines) > 3
    assert all(line[9:].startswith("part 00004 | ") and "users/s" in line for line in lines)
    assert {"recall@10_so_far", "ndcg@10_so_far"} <= parts[0].keys() and parts[0]["step"] == 4
    assert "recall@10" not in parts[0]  # curves.png draws those of whole evaluations
    scalars = EventAccumulator(str(tmp_path / "tb")).Reload().Scalars("part/recall@10_so_far")
    assert len(scalars) == len(parts)
    asked = evaluator.questions(2)
    target = evaluator.users.held_out.target[1]
    assert asked[1].expected == evaluator.speaker.spelled(evaluator.prepared.codes)[target]
    assert (
        asked[1].prompt.tolist()
        == asking.prompts(evaluator.prepared, evaluator.speaker, "chat", evaluator.users, config)(1).tolist()
    )


@pytest.fixture(scope="module")
def held_out(folder):
    """Sources of samples: documents, and chats of two sources, some with thoughts."""

    def chat(n, thought=""):
        question, answer = f"what is the {WORDS[n % 7]} of {n}", f"{thought}the answer is {n}"
        return tuple({"role": r, "content": c} for r, c in (("user", question), ("assistant", answer)))

    (folder / "valid").mkdir()
    made = [Sample("d", "text", None, ("once upon a time",))]
    made += [Sample(f"a{n}", "a", chat(n), None) for n in range(9)]
    made += [Sample(f"b{n}", "b", chat(n, f"<think>\nit is {n}\n</think>\n"), None) for n in range(3)]
    write_samples(folder / "valid", ((one, {}) for one in made), rows_per_file=5)
    return sources_of(str(folder / "valid/file_list.json"), "--valid_samples")


def test_answers_are_transformers_own_greedy_ones_and_stop_where_a_turn_ends(folder, held_out):
    tokenizer = load_tokenizer(folder / "llm", "--model_dir")
    asked = chats(held_out, 4, tokenizer, True, None)
    assert [question.title for question in asked] == ["a", "b", "a", "b"]  # every source has its turn
    plain = AutoModelForCausalLM.from_pretrained(folder / "llm").eval()
    generations = SampleGenerations(TokenModel.load(folder / "llm").eval(), tokenizer, asked)
    stops = generations.stops.tolist()
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in stops
    for question, answer in zip(asked, generations.answers(), strict=True):
        ids = plain.generate(
            question.prompt[None], attention_mask=torch.ones_like(question.prompt[None]), do_sample=False,
            max_new_tokens=ANSWER_TOKENS, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=list(range(len(tokenizer), plain.config.vocab_size)) or None,
        )[0, len(question.prompt) :].tolist()  # fmt: skip
        ids = ids[: next((n for n, token in enumerate(ids) if token in stops), len(ids))]
        assert answer == tokenizer.decode(ids) and ids


def test_questions_are_the_beginnings_of_training_texts(folder, held_out):
    tokenizer = load_tokenizer(folder / "llm", "--model_dir")
    renderer = Renderer(tokenizer, add_think_pattern=True)
    for question in chats(held_out, 12, tokenizer, True, None):
        n = int(question.expected.rsplit(" ", 1)[1])
        words = f"what is the {WORDS[n % 7]} of {n}"
        messages = {"role": "user", "content": words}, {"role": "assistant", "content": question.expected}
        text, _ = renderer.text(Sample("x", "s", messages, None))
        assert text.startswith(tokenizer.decode(question.prompt))
        assert ("/no_think" in text) == (question.title == "a")


def test_only_chats_that_the_model_has_room_for_are_asked(folder, held_out):
    tokenizer = load_tokenizer(folder / "llm", "--model_dir")
    longest = max(len(question.prompt) for question in chats(held_out, 12, tokenizer, True, None))
    some = chats(held_out, 12, tokenizer, True, longest - 1 + ANSWER_TOKENS)
    assert 0 < len(some) < 12 and max(len(question.prompt) for question in some) < longest
    with pytest.raises(InputError, match="none of the first 1,000 samples of --valid_samples is a chat"):
        chats(held_out, 12, tokenizer, True, 10)


@pytest.fixture(scope="module")
def dataset(folder, held_out):
    """The JSON of a dataset that trains on what is held out."""
    settings = {
        "name": "chat_completion_parquet", "sources": str(folder / "valid/file_list.json"),
        "max_length": 128, "num_workers": 0, "base_model_dir": str(folder / "llm"),
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(settings))
    return folder / "dataset.json"


@pytest.mark.launch
def test_a_run_shows_what_its_model_answers_at_every_evaluation(folder, dataset, tmp_path):
    given = {"valid_samples": folder / "valid/file_list.json", "sample_generations": 2, "max_steps": 4,
             "eval_steps": 2, "dataset_config": dataset}  # fmt: skip
    result = run_command([
        sys.executable, ROOT / "scripts/train_qwen3.py",
        *flags(folder, tmp_path / "run", **{k: v for k, v in given.items()}),
    ])  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "run/train.log").read_text()
    evaluations = len(events(tmp_path / "run", "eval"))
    assert evaluations >= 2 and log.count(" sample 0000") == 2 * evaluations
    assert "| 1 of 2: a\n  asked: <|im_start|>" in log and "\n  expected: the answer is 0" in log
    assert log.count("\n  answered: ") == 2 * evaluations
    (place,) = {path.parent for path in (tmp_path / "run/log").rglob("events.out*")}
    tags = EventAccumulator(str(place)).Reload().Tags()["tensors"]
    assert {"sample/1/text_summary", "sample/2/text_summary"} <= set(tags)


@pytest.mark.launch
def test_ranks_with_shards_of_the_weights_answer_together_at_every_evaluation(
    folder, demo_config, dataset, tmp_path
):
    """Under ZeRO-3 every forward pass is a collective: a rank that stops early leaves the other waiting.

    And what DeepSpeed remembers of one evaluation must not slow the next one down to a halt.
    """
    given = {
        "dataset_config": dataset, "valid_samples": folder / "valid/file_list.json",
        "sample_generations": 3, "max_steps": 2, "eval_steps": 1, "num_training_steps": 2,
        "interaction_data": demo_config.interaction_data, "semantic_ids": folder / "sid.json",
        "valid_users": 7, "eval_batch_size": 2, "history": 8, "prompt": "chat",
        "per_device_train_batch_size": 1, "collective_timeout_minutes": 2,
    }  # fmt: skip
    result = deepspeed(
        2,
        ROOT / "scripts/train_qwen3.py",
        *flags(folder, tmp_path / "run", **given),
        "--reshard_after_forward",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "run/train.log").read_text()
    evaluations = events(tmp_path / "run", "eval")
    assert len(evaluations) == 2 and log.count("\n  answered: ") == 3 * len(evaluations)
    assert all("valid_loss" in one and "ndcg@10" in one for one in evaluations)
    answers = [line for line in log.splitlines() if line.startswith("  answered: ")]
    assert len(set(map(len, answers))) > 1  # they differ in length


def test_a_log_that_cannot_be_drawn_in_costs_no_run(tmp_path):
    (tmp_path / "tb").write_text("a file")
    session = session_in(tmp_path)
    session.log.sample(session.state, 1, "1 of 1: a", {"asked": "q", "answered": "a\n\nb", "expected": "b"})
    session.log.close()
    assert "\n  answered: a\\n\\nb\n  expected: b\n" in (tmp_path / "train.log").read_text()
