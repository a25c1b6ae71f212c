"""Adapters in the two towers: what trains, what is exported, what peft makes of it, and how a run goes on."""

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from conftest import ROOT, as_flags, events, inputs_of, run_command
from safetensors.torch import load_file
from transformers import AutoModel

from pixelrec_train.data.windows import TwoTowerCollator
from pixelrec_train.engine.task import Task
from pixelrec_train.engine.weights import load_weights
from pixelrec_train.errors import InputError
from pixelrec_train.model.adapters import adapt_towers
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.tasks.two_tower import TwoTowerTask


@pytest.fixture(scope="module")
def config(demo_config):
    return replace(demo_config, lora_r=4, lora_alpha=8, lora_dropout=0.0)


@pytest.fixture(scope="module")
def batch(config):
    inputs = inputs_of(config)
    windows = [np.asarray(inputs.interactions.items[a:b]) for a, b in inputs.split.windows[:8]]
    negatives = np.random.default_rng(0).choice(np.setdiff1d(np.arange(700), np.concatenate(windows)), 48)
    return TwoTowerCollator(inputs.item_text, None, config.max_seq_length).collate(windows, negatives)


def task_of(config, moved=False) -> Task:
    """As a run makes it; moved: all that trains at random, as if it had been trained."""
    torch.manual_seed(0)
    model = HLLMModel.starting(config)
    adapt_towers(model, config, config.seed)
    with torch.no_grad():
        for parameter in model.parameters() if moved else ():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    return TwoTowerTask(model, config, config.item_dir)


def weights_of(task):
    return {name: p.detach().clone() for name, p in task.named_parameters()}


def trains(task):
    return {name for name, p in task.named_parameters() if p.requires_grad}


BOTH, FROZEN = ("item", "user"), {"freeze_item_llm": True, "item_emb_token_n": 0}


@pytest.mark.parametrize(("towers", "more"), [(BOTH, {}), (("user",), {}), (("item",), {}), (BOTH, FROZEN)])
def test_adapters_and_what_stands_beside_the_llms_train_and_untrained_they_change_nothing(
    config, batch, towers, more
):
    plain, adapted = (
        task_of(replace(config, projection=True, lora_r=r, lora_alpha=None, lora_dropout=0.05, **more,
                        lora_towers=towers if r else BOTH)) for r in (None, 4)
    )  # fmt: skip
    with torch.no_grad():
        assert plain(batch)[0].item() == pytest.approx(adapted(batch)[0].item(), rel=1e-6)
    for tower in ("item", "user"):
        own = {n for n in trains(adapted) if n.startswith(f"model.{tower}_llm.backbone.")}
        if tower in towers and not (more and tower == "item"):
            assert own and all(".lora_" in name for name in own)
        else:
            assert own == {n for n in trains(plain) if n.startswith(f"model.{tower}_llm.backbone.")}
    beside = [{n for n in trains(task) if ".backbone." not in n} for task in (plain, adapted)]
    assert beside[0] == beside[1] and len(beside[0]) == (2 if more else 3)


def test_steps_move_adapters_alone_and_recomputing_changes_no_gradient(config, batch):
    gradients = []
    for recompute in (False, True):
        task = task_of(config, moved=True)
        if recompute:
            task.model.enable_checkpointing()
        task(batch)[0].backward()
        gradients.append({n: p.grad for n, p in task.named_parameters() if p.requires_grad})
    assert all(g.abs().max() > 0 for g in gradients[0].values())
    assert all(torch.allclose(g, gradients[1][n], atol=1e-6) for n, g in gradients[0].items())
    before = weights_of(task)
    torch.optim.AdamW(task.parameters(), lr=0.1, weight_decay=0.1).step()
    moved = {name for name, p in task.named_parameters() if not p.equal(before[name])}
    assert moved == trains(task)
    for tower, source in (("item_llm", config.item_model_dir), ("user_llm", config.user_model_dir)):
        held = dict(getattr(task.model, tower).backbone.named_parameters())
        held = {name.replace(".base_layer", ""): p for name, p in held.items()}
        for name, weight in load_file(f"{source}/model.safetensors").items():
            assert held[name].equal(weight), name


@pytest.mark.parametrize("way", [{}, {"lora_use_dora": True, "lora_target_modules": ("all-linear",)}])
def test_an_export_is_whole_models_and_adapters_that_peft_loads_upon_the_bases(config, batch, way, tmp_path):
    config = replace(config, **way)
    task = task_of(config, moved=True).eval()
    task.export(tmp_path, dict(task.named_parameters()))
    twin = TwoTowerTask(HLLMModel.load(tmp_path, config.max_text_length), config, config.item_dir)
    assert not any("lora" in name for name, _ in twin.named_parameters())
    with torch.no_grad():
        for ours, theirs in zip(task.model(batch), twin.model(batch), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
    for tower, source in (("item_llm", config.item_model_dir), ("user_llm", config.user_model_dir)):
        settings = json.loads((tmp_path / f"{tower}_adapter/adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == source
        upon = peft.PeftModel.from_pretrained(
            AutoModel.from_pretrained(source), tmp_path / f"{tower}_adapter"
        )
        whole, embeddings = AutoModel.from_pretrained(tmp_path / tower), torch.randn(2, 5, 32)
        with torch.no_grad():
            found = [m.eval()(inputs_embeds=embeddings).last_hidden_state for m in (upon, whole)]
        assert torch.allclose(*found, atol=1e-5)


def test_the_best_model_comes_back_into_towers_with_adapters(config, batch, tmp_path):
    """As the end of a run does it."""
    task = task_of(config, moved=True).eval()
    with torch.no_grad():
        expected = task(batch)[0].item()
        task.export(tmp_path, dict(task.named_parameters()))
        for parameter in task.parameters():
            parameter += 0.3
        best = HLLMModel.load(tmp_path, config.max_text_length)
        adapt_towers(best, config, 7)
        load_weights(task.model, best)
        assert task(batch)[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lora_towers": ("user", "users")}, "--lora_towers takes item, user or item,user, got 'user,users'"),
        ({"lora_towers": ("item",), "freeze_item_llm": True, "item_emb_token_n": 0},
         "--lora_towers item names the tower that --freeze_item_llm freezes"),
        ({"lora_towers": ("item",), "id_only": True, "item_model_dir": None},
         "--lora_towers item names the tower that --id_only leaves out"),
        ({"random_init": ("user",)}, "--lora_r with --random_init would train adapters upon random weights"),
        ({"lora_r": None, "lora_alpha": None, "lora_dropout": 0.05, "lora_towers": ("user",)},
         "--lora_towers user says nothing without --lora_r"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(config, changes, says):
    with pytest.raises(InputError, match=re.escape(says)):
        replace(config, **changes)
    replace(config, lora_towers=("user",), random_init=("item",))  # it trains in full


@pytest.mark.launch
def test_a_killed_run_goes_on_to_the_bit(config, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def train(output, *more):
        flags = as_flags(
            replace(config, lora_dropout=0.2, learning_rate=1e-2, max_steps=4, save_steps=2),
            output_dir=output, per_device_train_batch_size=16, logging_steps=1, dry_run="None",
        )  # fmt: skip
        result = run_command([sys.executable, ROOT / "scripts/train_pixelrec.py", *flags, *more])
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    assert "trained parameters (adapters of rank 4 in q_proj," in train(whole)
    shutil.copytree(whole, killed, symlinks=True)
    for last in (*killed.glob("checkpoint-*[!2]"), killed / "best_model"):
        shutil.rmtree(last)
    (killed / "table.json").unlink()
    assert "resumed from" in train(killed, "--resume", "auto")
    losses = [[event["loss"] for event in events(run, "step")] for run in (whole, killed)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    for file in ("item_llm_adapter/adapter_model", "user_llm/model", "hllm_head"):
        ours, theirs = (load_file(run / f"best_model/{file}.safetensors") for run in (whole, killed))
        assert ours.keys() == theirs.keys() and all(ours[name].equal(x) for name, x in theirs.items()), file
