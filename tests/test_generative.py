"""The generative head from the command line: two stages, ZeRO-3, and evaluation with the same figures."""

import itertools
import json
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed, events, run_command
from safetensors.torch import load_file
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from pixelrec_train import distributed
from pixelrec_train.commands import expand_vocabulary
from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.config import GenerativeConfig
from pixelrec_train.data import interactions
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.item_text import Reader
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.validation_loss import token_loss
from pixelrec_train.flags import parse_args
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.tasks.tokens import TokenTask

SIZES = (6, 7, 9)


@pytest.fixture(scope="module")
def generative(demo, demo_config, tmp_path_factory):
    """(folder, flags): semantic ids of the demo, some shared, and a tiny LM that has words for them."""
    folder = tmp_path_factory.mktemp("generative")
    data = interactions.read([demo_config.interaction_data], demo_config)
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.integers(0, np.prod(SIZES), data.num_items), SIZES), 1)
    SemanticIds(data.item_ids, codes.astype(np.int32), SIZES).save(folder / "sid.json")
    write_causal_lm(all_text(demo_config.text_data), folder / "lm", hidden_size=32, vocab_size=600)
    expand = {"hf_model_dir": folder / "lm", "output_model_dir": folder / "llm"}
    expand_vocabulary.main(list(map(str, as_flags(expand | {"semantic_ids": folder / "sid.json"}))))
    flags = {
        "interaction_data": demo_config.interaction_data, "text_data": demo_config.text_data,
        "text_keys": "title,tag", "semantic_ids": folder / "sid.json", "model_dir": folder / "llm",
        "max_seq_length": 6, "max_text_length": 12, "bf16": False, "gradient_checkpointing": False,
        "per_device_train_batch_size": 16, "num_train_epochs": 1, "learning_rate": 3e-3, "num_beams": 20,
        "dataloader_num_workers": 0, "logging_steps": 5, "cache_dir": demo_config.cache_dir,
        "logging_dir": folder / "logs/run",
    }  # fmt: skip
    return folder, flags


@pytest.fixture(scope="module")
def stages(generative):
    """{stage: (run directory, a function that launches it)}: 1 on two ranks with ZeRO-3, 2 on one, with
    adapters (3) and without."""
    folder, flags = generative
    script, more = ROOT / "scripts/train_generative.py", {"save_steps": 3, "save_total_limit": 50}
    zero3 = {"new_rows_only": True, "deepspeed": ROOT / "configs/ds_config_zero3.json"}
    stage1 = folder / "stage1/best_model/llm"
    own = {
        1: flags | more | zero3,
        2: flags | more | {"model_dir": stage1, "num_beams": 30, "dropout": 0.1},
        3: flags | more | {"model_dir": stage1, "lora_r": 4, "lora_dropout": 0.1, "max_steps": 12},
    }

    def launch(stage, **changes):
        command = [script, *as_flags(own[stage] | changes)]
        result = deepspeed(2, *command) if stage == 1 else run_command([sys.executable, *command])
        assert result.returncode == 0, result.stdout + result.stderr

    for stage in own:
        launch(stage, output_dir=folder / f"stage{stage}")
    return {stage: (folder / f"stage{stage}", partial(launch, stage)) for stage in own}


@pytest.mark.launch
def test_two_stages_train_export_and_evaluate_alike_on_any_ranks(generative, stages):
    folder, flags = generative
    (stage1, _), (stage2, _), _ = stages.values()
    before, after = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (folder / "llm", stage1 / "best_model/llm")
    )
    moved = [name for name in before if not before[name].equal(after[name])]
    assert set(moved) == {"model.embed_tokens.weight", "lm_head.weight"}  # tied: one table
    old = TokenModel.load(folder / "llm").vocabulary.first_new_id
    assert before[moved[0]][:old].equal(after[moved[0]][:old])
    losses = [event["loss"] for event in events(stage2, "step")]
    assert losses[-1] < losses[0] and {"itemic_loss", "text_loss", "level3_top1"} <= set(
        events(stage2, "step")[0]
    )
    assert {"recall@10", "sid_recall@10", "average_recall@10", "valid_loss"} <= set(events(stage2, "eval")[0])

    own = json.loads((stage2 / "table.json").read_text())
    assert list(own) == ["popularity", "generative"]
    assert own["generative"]["sid_recall@10"] >= own["generative"]["recall@10"]
    evaluate = [ROOT / "scripts/evaluate_pixelrec.py", "--checkpoint", stage2 / "best_model"]
    result = deepspeed(2, *evaluate, "--output_dir", folder / "judged", "--cache_dir", flags["cache_dir"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((folder / "judged/metrics.json").read_text())["metrics"] == own
    assert "counting ids, as most papers do: recall@10" in result.stdout


@pytest.mark.launch
def test_with_adapters_layers_and_new_rows_move_and_nothing_else(stages):
    (before, _), _, (run, _) = stages.values()
    before, after = (load_file(x / "best_model/llm/model.safetensors") for x in (before, run))
    table = "model.embed_tokens.weight"
    first = TokenModel.load(run / "best_model/llm").vocabulary.first_new_id
    assert before[table][:first].equal(after[table][:first]) and not before[table].equal(after[table])
    moved = {name for name in before if not before[name].equal(after[name])} - {table}
    assert len(moved) == 2 * 7 and all(name.endswith("_proj.weight") for name in moved)
    adapter = load_file(run / "best_model/adapter/adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * 2 + 1  # and the new rows


@pytest.mark.launch
def test_a_comparison_puts_it_beside_every_baseline_with_the_same_figures(generative, stages):
    folder, flags = generative
    run, own = folder / "stage2", json.loads((folder / "stage2/table.json").read_text())["generative"]
    shared = {name: flags[name] for name in ("interaction_data", "text_data", "text_keys", "cache_dir")}
    more = {"checkpoint": run / "best_model", "output_dir": folder / "compared", "num_train_epochs": 1}
    flags = as_flags(shared | more | {"logging_dir": folder / "logs/compared"})
    result = run_command([sys.executable, ROOT / "scripts/compare.py", *flags])
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((folder / "compared/table.json").read_text())
    assert list(rows) == ["popularity", "item_knn", "tfidf", "knn_tfidf", "ease", "sasrec", "stage2"]
    figures = {name for name in own if "@" in name and "ci95" not in name and "cold" not in name}
    assert {name: rows["stage2"][name] for name in figures} == {name: own[name] for name in figures}
    items = len(SemanticIds.load(folder / "sid.json").item_ids)
    assert f"{items:,} candidates" in result.stdout and "average over the items of an id" in result.stdout


@pytest.mark.launch
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_that_stopped_goes_on_equal_to_the_bit(stages, stage, tmp_path):
    whole, launch = stages[stage]
    left = tmp_path / "left"  # what is there when all processes are killed behind this step
    left.mkdir()
    shutil.copytree(whole / "checkpoint-step-6", left / "checkpoint-step-6")
    for name in ("run.json", "metrics.jsonl", "train.log"):
        shutil.copy(whole / name, left)
    launch(output_dir=left, resume="auto")
    for kind in ("step", "eval"):
        assert computed(left, kind) == computed(whole, kind)
    assert len(events(whole, "step")) > 2
    weights = "best_model/llm/model.safetensors"
    assert (left / weights).read_bytes() == (whole / weights).read_bytes()
    assert json.loads((left / "table.json").read_text()) == json.loads((whole / "table.json").read_text())


def computed(run, kind):
    """All figures of a run's events but times and rates."""
    measured = {"step_ms", "data_wait_pct", "memory_gb", "eta_s", "time"}
    return [
        {k: v for k, v in event.items() if k not in measured and not k.endswith("_per_s")}
        for event in events(run, kind)
    ]


def test_ids_and_vocabulary_that_do_not_fit_are_refused(generative, tmp_path):
    folder, flags = generative
    config = parse_args(GenerativeConfig, list(map(str, as_flags(flags))))
    model = TokenModel.load(folder / "llm")
    inputs = read_inputs(config, config, Reader(config, folder / "llm"))
    known = SemanticIds.load(folder / "sid.json")
    SemanticIds(known.item_ids[1:], known.codes[1:], SIZES).save(tmp_path / "fewer.json")
    SemanticIds(known.item_ids, known.codes, (6, 7, 10)).save(tmp_path / "other.json")
    for file, words in (("fewer", "have no semantic id"), ("other", "codebooks of 6, 7, 10, but")):
        with pytest.raises(InputError, match=words):
            Prepared.of(model, folder / "llm", tmp_path / f"{file}.json", inputs)


def test_the_validation_loss_is_what_exhaustive_beams_say_of_the_items_taken_next(generative, monkeypatch):
    """And the same on any number of ranks, whatever fits into a batch."""
    folder, flags = generative
    config = parse_args(GenerativeConfig, list(map(str, as_flags(flags))))
    model, inputs = TokenModel.load(folder / "llm").eval(), read_inputs(config, config)
    prepared = Prepared.of(model, folder / "llm", folder / "sid.json", inputs)
    users, leaves = inputs.split.valid.sample(20, 0), prepared.trie.num_leaves
    histories = [users.history(e)[-5:] for e in range(20)]
    prompts = [prepared.collator.prompt(history) for history in histories]
    ids, mask = (
        pad_sequence(part, batch_first=True, padding_side="left")
        for part in (prompts, [torch.ones_like(prompt) for prompt in prompts])
    )
    rows = [torch.arange(a, b) for a, b in itertools.pairwise(model.vocabulary.level_edges)]
    with model.decoding() as decoder:
        found = beam_search(decoder, prepared.trie, rows, ids, mask, leaves)
    hit = found.leaves == torch.from_numpy(prepared.trie.leaf_of[users.target])[:, None]
    assert hit.sum(1).tolist() == [1] * 20
    expected = -found.scores[hit].sum() / (20 * len(SIZES))

    task = TokenTask(model, folder / "llm")
    for tokens in (1, 100, 16384):
        loss = token_loss(task, prepared.next_items(users, 6, tokens))
        perplexity = pytest.approx(2.718281828459045 ** float(expected), rel=1e-4)
        assert loss == {"valid_loss": pytest.approx(float(expected), abs=1e-5), "perplexity": perplexity}
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(list(prepared.next_items(users, 6, 100)))
    assert [len(batches) for batches in shares] == [3, 3, 3]  # of 7 blocks
    assert sum(len(batch.labels) for batches in shares for batch in batches) == 20 * len(SIZES)
    monkeypatch.setattr(distributed, "mean_tensor", lambda x: x / 3)
    total = sum(token_loss(task, batches)["valid_loss"] * labels_of(batches) for batches in shares)
    assert total / (20 * len(SIZES)) == pytest.approx(float(expected), abs=1e-5)
    with pytest.raises(InputError, match="nothing is to be predicted"):
        token_loss(task, [prepared.collator([])])


def labels_of(batches):
    return sum(len(batch.labels) for batch in batches)


def test_the_best_checkpoint_may_be_chosen_by_the_validation_loss():
    objective = TokenTask.objective
    for name in ("valid_loss", "perplexity"):
        assert objective.chosen_by(name) == name and name in objective.falling
    assert objective.chosen_by(None) == "ndcg@10"
