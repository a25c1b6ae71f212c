"""Adapters: what peft computes, trained by the engine, exported as a whole model and as peft's own files."""

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace

import peft
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, as_flags, deepspeed, events, run_command
from launched import generative
from launched.lora import LORA, STEPS
from safetensors.torch import load_file, save_file
from small_samples import write_small_samples
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from pixelrec_train.commands import merge_adapter
from pixelrec_train.config.adapters import AdapterFlags
from pixelrec_train.engine.optim import build_optimizer
from pixelrec_train.engine.state import steps_per_epoch
from pixelrec_train.engine.weights import load_weights
from pixelrec_train.errors import InputError
from pixelrec_train.model.adapters import entries, quantise
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.tasks.tokens import TokenTask
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings.train_two_tower import build_loader, prepare

FOUR_BIT = importlib.util.find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(not FOUR_BIT, reason="bitsandbytes is not installed")
TIED = pytest.mark.parametrize("tied", [True, False])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tiedTrue/ and tiedFalse/, two tiny Qwen3 with itemic tokens; baseTrue/ and baseFalse/ without."""
    folder = tmp_path_factory.mktemp("lora")
    for tied in (True, False):
        base = write_causal_lm(
            ["a tale of two cities"] * 3, folder / f"base{tied}", hidden_size=64, tied=tied
        )
        expand(base, folder / f"tied{tied}", "onerec", (4, 6), "mean_cov", 0)
    return folder


def drawn(model, lora=LORA, seed=0, **more):
    """The model with adapters, all that trains moved at random, as if it had been trained."""
    model.train_adapters(lora, 0, **more)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def exported(model, source, out):
    """A checkpoint's directory of it."""
    task = TokenTask(model, str(source))
    task.export(out, dict(task.state_dict()))
    return out


def logits_of(model):
    """[T, words] of a fixed text."""
    with torch.no_grad():
        texts = generative.batch_of(model, 0).texts
        return model.logits(model.read(texts))[:, : model.num_tokens]


def plain_logits(causal_lm, model):
    ids = generative.batch_of(model, 0).texts.token_ids.reshape(-1, generative.LENGTH)
    with torch.no_grad():
        return causal_lm.eval()(ids).logits.flatten(0, 1)[:, : model.num_tokens]


@TIED
def test_untrained_adapters_change_nothing_and_are_all_that_trains(folder, tied):
    model = TokenModel.load(folder / f"tied{tied}")
    before, names = logits_of(model), {name for name, _ in model.named_parameters()}
    model.train_adapters(LORA, 0)
    assert torch.equal(logits_of(model), before)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    rows = {"embedding.new_rows"} | (set() if tied else {"head.new_rows"})
    assert rows == trains & names and all(".lora_" in name for name in trains - names)
    assert len(trains - names) == 2 * 7 * 2  # matrices, projections, layers
    again = TokenModel.load(folder / f"tied{tied}")
    torch.manual_seed(99)
    again.train_adapters(LORA, 0)
    assert all(torch.equal(p, dict(again.named_parameters())[n]) for n, p in model.named_parameters())


@TIED
def test_the_export_is_a_whole_model_and_its_adapter_is_pefts(folder, tied, tmp_path):
    source = folder / f"tied{tied}"
    model = drawn(TokenModel.load(source))
    ours = logits_of(model)
    assert (ours - logits_of(TokenModel.load(source))).abs().max() > 0.1
    out = exported(model, source, tmp_path / "out")
    whole = AutoModelForCausalLM.from_pretrained(out / "llm")
    assert torch.allclose(plain_logits(whole, model), ours, atol=2e-5)
    assert torch.allclose(logits_of(TokenModel.load(out / "llm")), ours, atol=2e-5)
    upon = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), out / "adapter")
    assert torch.allclose(plain_logits(upon, model), ours, atol=1e-6)
    assert torch.allclose(plain_logits(upon.merge_and_unload(), model), ours, atol=2e-5)


def test_without_new_rows_or_with_them_left_out_adapters_alone_are_trained(folder, tmp_path):
    for source, lora in (("baseTrue", {}), ("tiedTrue", {"lora_train_new_rows": False})):
        model = drawn(TokenModel.load(folder / source), AdapterFlags(lora_r=2, **lora))
        assert all(".lora_" in name for name, p in model.named_parameters() if p.requires_grad)
        out = exported(model, folder / source, tmp_path / source)
        assert (
            json.loads((out / "adapter/adapter_config.json").read_text())["trainable_token_indices"] is None
        )
        base = AutoModelForCausalLM.from_pretrained(folder / source)
        upon = peft.PeftModel.from_pretrained(base, out / "adapter")
        assert torch.allclose(plain_logits(upon, model), logits_of(model), atol=1e-6)


def twin(directory, model):
    """peft's own model, all of it by its own ways, with the start of our adapters."""
    plain = AutoModelForCausalLM.from_pretrained(directory)
    rows = list(range(model.vocabulary.first_new_id, model.num_tokens))
    tables = ["embed_tokens"] if model.head is None else ["embed_tokens", "lm_head"]
    settings = peft.LoraConfig(
        r=LORA.lora_r, lora_alpha=LORA.lora_alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=list(LORA.lora_target_modules), trainable_token_indices=dict.fromkeys(tables, rows),
    )  # fmt: skip
    theirs = peft.get_peft_model(plain, settings)
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if ".lora_" in name:
                parameter.copy_(ours[name.replace("base_model.model.model.", "backbone.")])
    return theirs


def pairs(model, theirs):
    """{our name: (our parameter, theirs)} of all that trains."""
    named = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            table = {"embedding.new_rows": "embed_tokens.", "head.new_rows": "lm_head."}.get(name)
            other = name.replace("backbone.", "base_model.model.model.")
            other = next(n for n in named if table in n) if table else other
            found[name] = parameter, named.pop(other)
    assert not named
    return found


def loss_of(theirs, model, batch):
    logits = theirs(batch.texts.token_ids.reshape(-1, generative.LENGTH)).logits.flatten(0, 1)
    return F.cross_entropy(logits[batch.positions][:, : model.num_tokens], batch.labels)


@TIED
def test_gradients_are_those_of_pefts_own_model(folder, tied):
    model = TokenModel.load(folder / f"tied{tied}")
    model.train_adapters(LORA, 0)
    theirs = twin(folder / f"tied{tied}", model)
    with torch.no_grad():
        for number, (ours, other) in enumerate(pairs(model, theirs).values()):
            if not ours.any():  # B: zero, and so would A's gradient be
                ours.copy_(torch.randn(ours.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
                other.copy_(ours)
    batch = generative.batch_of(model, 1)
    loss, _ = TokenTask(model, folder)(batch)
    loss.backward()
    expected = loss_of(theirs, model, batch)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, (ours, other) in pairs(model, theirs).items():
        assert ours.grad.abs().max() > 0, name
        assert torch.allclose(ours.grad, other.grad, atol=1e-6, rtol=1e-4), name


@pytest.fixture(scope="module")
def tower_config(demo_config):
    """A two-tower run of 4 windows per rank."""
    return replace(
        demo_config, lora_r=4, lora_alpha=16, lora_dropout=0.0, per_device_train_batch_size=4,
        logging_steps=1, learning_rate=1e-2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def findings(folder, tower_config):
    """What tests/launched/lora.py found on two ranks."""
    out = folder / "findings.json"
    result = deepspeed(
        2, ROOT / "tests/launched/lora.py", folder, out, *as_flags(tower_config, dry_run="None")
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(out.read_text())
    assert found["ranks"] == 2
    return found


@pytest.mark.launch
@pytest.mark.parametrize("run", ["zero3", "untied"])
def test_the_engine_trains_as_pefts_own_model_and_adamw_do(folder, findings, run):
    """One process, no DeepSpeed."""
    directory = folder / f"tied{run != 'untied'}"
    model = TokenModel.load(directory)
    model.train_adapters(LORA, 0)
    theirs = twin(directory, model)
    trains = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trains, lr=1e-2, weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, 100)
    for step, report in enumerate(findings[run]["steps"]):
        loss = loss_of(theirs, model, generative.batch_of(model, step))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trains, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert report["loss"] == pytest.approx(loss.item(), rel=1e-4), step
        assert report["grad_norm"] == pytest.approx(norm.item(), rel=1e-3), step
    assert len(findings[run]["steps"]) == STEPS


@pytest.mark.launch
@pytest.mark.parametrize("run", ["towers2", "towers3"])
def test_towers_train_on_any_stage_as_plain_adamw_does_on_one_rank(tower_config, findings, run):
    config, found = replace(tower_config, per_device_train_batch_size=8), findings[run]
    inputs, known, model, _ = prepare(config, 1)
    loader, task = build_loader(config, inputs, known), TwoTowerTask(model, config, config.item_dir)
    optimizer, schedule = build_optimizer(task, config, steps_per_epoch(loader.batches_in(0), config))
    trains = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for report, batch in zip(found["steps"], loader.epoch(0), strict=False):
        loss, _ = task(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trains.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert report["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert report["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    assert len(found["steps"]) == STEPS and set(found["moved"]) == trains.keys()
    count = sum(p.numel() for p in trains.values())
    assert found["trains"] == count and count * 12 <= found["optimizer_bytes"] < count * 13


@pytest.mark.launch
@pytest.mark.parametrize("run", ["zero3", "untied", "bf16", "4bit"])
def test_under_the_engine_frozen_weights_stand_still_and_the_export_is_what_it_held(folder, findings, run):
    if run == "4bit" and not FOUR_BIT:
        pytest.skip("bitsandbytes is not installed")
    rows = {"embedding.new_rows"} | ({"head.new_rows"} if run == "untied" else set())
    moved = set(findings[run]["moved"])
    assert rows <= moved and all(".lora_" in name for name in moved - rows)
    assert sum(".lora_B." in name for name in moved) == 2 * 7
    made = folder / f"made-{run}"
    held = torch.load(made / "logits.pt", weights_only=True)
    whole = AutoModelForCausalLM.from_pretrained(made / "llm", dtype="auto").eval()
    with torch.no_grad():
        theirs = whole(held["ids"].reshape(-1, generative.LENGTH)).logits.flatten(0, 1).float()
    known = held["logits"].isfinite()
    ours = held["logits"][known]
    off = (theirs[known] - ours).abs().max() / ours.abs().max()
    assert off < (3e-2 if run in ("bf16", "4bit") else 1e-5)


def merge(*words):
    merge_adapter.main.__wrapped__([str(word) for word in words])


@TIED
def test_an_adapter_of_ours_and_one_of_pefts_are_merged_by_a_command(folder, tied, tmp_path, capsys):
    source = folder / f"tied{tied}"
    model = drawn(TokenModel.load(source))
    out = exported(model, source, tmp_path / "out")
    (out / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter of .*The whole model lies beside it: .*out/llm"):
        TokenModel.load(out / "adapter")
    merge("--adapter_dir", out / "adapter", "--output_model_dir", tmp_path / "merged")
    assert "with an adapter in 14 layers" in capsys.readouterr().out
    assert torch.allclose(logits_of(TokenModel.load(tmp_path / "merged")), logits_of(model), atol=2e-5)
    # A plain one, of few layers, another spelling of its targets, upon a copy of its base.
    theirs = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(source),
        peft.LoraConfig(r=2, target_modules=r".*\.1\..*(q|up)_proj", init_lora_weights=False),
    )
    theirs.save_pretrained(tmp_path / "theirs")
    shutil.copytree(source, tmp_path / "copy")
    base = "--base_model_dir", tmp_path / "copy"
    merge(
        "--adapter_dir", tmp_path / "theirs", *base, "--output_model_dir", tmp_path / "merged", "--overwrite"
    )
    found = logits_of(TokenModel.load(tmp_path / "merged"))
    assert torch.allclose(found, plain_logits(theirs, model), atol=2e-5)


def test_an_adapter_that_lacks_weights_is_refused_and_leaves_nothing(folder, tmp_path):
    source = folder / "tiedTrue"
    out = exported(drawn(TokenModel.load(source)), source, tmp_path / "out")
    file = out / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, file)
    words = "--adapter_dir", out / "adapter", "--output_model_dir", tmp_path / "m", "--base_model_dir"
    for base, says in (
        (source, "1 of its weights are not what its settings say: .*weights lack"),
        (folder / "baseTrue", "does not fit"),
    ):
        with pytest.raises(InputError, match=says):
            merge(*words, base)
    assert not list(tmp_path.glob("m*"))


def test_the_best_model_comes_back_into_a_model_that_went_on(folder, tmp_path):
    """As train_generative's end does it: its whole weights, and adapters that do nothing."""
    source = folder / "tiedTrue"
    model = drawn(TokenModel.load(source))
    best, out = logits_of(model), exported(model, source, tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3
    back = TokenModel.load(out / "llm")
    back.train_adapters(LORA, 0)
    load_weights(model, back)
    assert torch.allclose(logits_of(model), best, atol=2e-5)


@needs_bitsandbytes
def test_weights_in_4_bits_are_near_and_only_adapters_get_gradients(folder, tmp_path):
    source = folder / "tiedTrue"
    plain, model = TokenModel.load(source), TokenModel.load(source)
    sizes = TokenTask(plain, source).weights[0]
    model.train_adapters(LORA, 0, device=torch.device("cpu"))
    off = (logits_of(model) - logits_of(plain)).abs().max() / logits_of(plain).abs().max()
    assert 0 < off < 0.3  # it is a coarse thing for 64 columns
    layer = model.backbone.layers[0].self_attn.q_proj
    assert layer.base_layer.weight.dtype == torch.uint8 and layer.base_layer.weight.numel() == 64 * 64 // 2
    assert entries(layer.base_layer.weight, 2048) == 64 * 64
    task = TokenTask(model, source)
    of_adapters = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    assert task.weights == (sizes + of_adapters, of_adapters)
    loss, _ = task(generative.batch_of(model, 1))
    loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    out = exported(model, source, tmp_path / "out")
    whole = TokenModel.load(out / "llm")
    moved = (
        whole.backbone.layers[0].self_attn.q_proj.weight - plain.backbone.layers[0].self_attn.q_proj.weight
    )
    assert 0 < moved.abs().max() < 0.1 * plain.backbone.layers[0].self_attn.q_proj.weight.abs().max() * 2


@needs_bitsandbytes
def test_columns_that_bitsandbytes_reads_wrongly_on_a_cpu_are_refused():
    layers = torch.nn.ModuleDict({"narrow": torch.nn.Linear(96, 64, bias=False)})
    with pytest.raises(InputError, match="no multiple of 64, and narrow has 96"):
        quantise(layers, torch.device("cpu"))


@pytest.mark.parametrize("library", ["peft", "bitsandbytes"])
def test_a_library_that_is_not_there_is_named_with_what_to_do(folder, library, monkeypatch):
    model = TokenModel.load(folder / "tiedTrue")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"{library} cannot be imported .*pip install {library}"):
        quantise(model.backbone, "cpu") if library == "bitsandbytes" else model.train_adapters(LORA, 0)


SCRIPT = ROOT / "scripts/train_qwen3.py"


def flags(folder, output):
    values = {
        "model_dir": folder / "llm", "dataset_config": folder / "samples/dataset.json", "output_dir": output,
        "cache_dir": folder / "cache", "learning_rate": 1e-2, "num_warmup_steps": 2, "max_steps": 6,
        "logging_per_step": 1, "bf16": False, "per_device_train_batch_size": 2, "lora_r": 4,
        "lora_target_modules": "q_proj,down_proj", "lora_dropout": 0.2, "save_checkpoint_per_step": 3,
        "valid_samples": folder / "samples/file_list.json",
    }  # fmt: skip
    return [part for name, value in values.items() for part in (f"--{name}", value)]


@pytest.mark.launch
def test_a_killed_run_goes_on_to_the_bit_and_what_has_no_adapter_stands_still(tmp_path):
    write_small_samples(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = run_command([sys.executable, SCRIPT, *flags(tmp_path, whole)])
    assert result.returncode == 0, result.stdout + result.stderr
    count = 4 * (2 * 32 + 96 + 32) * 2 + 12 * 32  # r (in + out) of two projections in two layers, and rows
    assert re.search(
        rf"model: {count:,} trained parameters \(adapters of rank 4 in q_proj,down_proj, and the new rows\)",
        result.stdout,
    )
    shutil.copytree(whole, killed, symlinks=True)
    shutil.rmtree(killed / "step6")
    shutil.rmtree(killed / "best_model")
    (killed / "table.json").unlink()
    again = run_command([sys.executable, SCRIPT, *flags(tmp_path, killed), "--resume", "auto"])
    assert again.returncode == 0 and "resumed from" in again.stdout, again.stdout + again.stderr
    losses = [[event["loss"] for event in events(run, "step")] for run in (whole, killed)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    for file in ("llm/model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = (load_file(run / "best_model" / file) for run in (whole, killed))
        assert ours.keys() == theirs.keys() and all(ours[name].equal(x) for name, x in theirs.items()), file
    before, after = (
        load_file(path / "model.safetensors") for path in (tmp_path / "llm", whole / "best_model/llm")
    )
    words = json.loads((tmp_path / "llm/itemic_meta.json").read_text())["first_new_id"]
    for name, weight in before.items():
        adapted = any(target in name for target in ("q_proj", "down_proj"))
        if "embed_tokens" in name:
            assert weight[:words].equal(after[name][:words]) and not weight[words:].equal(after[name][words:])
        else:
            assert weight.equal(after[name]) != adapted, name
