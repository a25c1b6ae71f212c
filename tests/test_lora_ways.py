"""Which layers get adapters, and rsLoRA and DoRA: what peft makes of the same settings."""

import json

import peft
import pytest
import torch
from test_lora import drawn, exported, logits_of, plain_logits
from transformers import AutoModelForCausalLM

from pixelrec_train.commands import merge_adapter
from pixelrec_train.config.adapters import AdapterFlags
from pixelrec_train.model.adapters import checked_targets
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways") / "base"
    return write_causal_lm(["a tale of two cities"] * 3, folder, hidden_size=64, tied=True)


def adapted(directory, *targets):
    """Names of the layers that get an adapter, and those that peft's own model of the whole LLM gets."""
    lora = AdapterFlags(lora_r=2, lora_target_modules=targets)
    model = TokenModel.load(directory)
    model.train_adapters(lora, 0)
    theirs = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(directory),
        peft.LoraConfig(r=2, target_modules=lora.lora_pattern or targets[0]),
    )
    ours = {n.partition(".lora_")[0] for n, p in model.backbone.named_parameters() if p.requires_grad}
    other = {n.partition(".lora_")[0] for n, p in theirs.named_parameters() if p.requires_grad}
    return ours, {name.removeprefix("base_model.model.model.") for name in other}


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["all-linear"], 14),
        ([r".*\.(q|v)_proj"], 4),
        ([r"model\.layers\.1\.mlp\.\w*_proj"], 3),
        ([r".*\.[a-z]{1", "2}_proj"], 10),  # a comma of its own
    ],
)
def test_layers_are_those_that_peft_gives_adapters(base, targets, count):
    ours, theirs = adapted(base, *targets)
    assert ours == theirs and len(ours) == count


def test_names_go_to_peft_as_they_are_and_a_place_may_be_named(base):
    backbone = TokenModel.load(base).backbone
    for names in (("q_proj", "mlp.up_proj"), ("layers.1.self_attn.q_proj",)):
        flags = AdapterFlags(lora_r=2, lora_target_modules=names)
        assert flags.lora_pattern is None and checked_targets(backbone, flags) == list(names)


@pytest.mark.parametrize("names", [["rslora"], ["dora"], ["rslora", "dora"]])
def test_the_merged_model_and_the_adapter_compute_what_peft_computes(base, names, tmp_path):
    way = {f"lora_use_{name}": True for name in names}
    lora = AdapterFlags(lora_r=4, lora_alpha=3, lora_dropout=0.1, lora_target_modules=("all-linear",), **way)
    plain = TokenModel.load(base)
    model = TokenModel.load(base)
    model.train_adapters(lora, 0)
    assert torch.allclose(logits_of(model), logits_of(plain), atol=1e-6)  # untrained they change nothing
    model = drawn(TokenModel.load(base), lora).eval()
    ours, out = logits_of(model), exported(model, base, tmp_path / "out")
    settings = json.loads((out / "adapter/adapter_config.json").read_text())
    assert settings["use_dora"] == lora.lora_use_dora and settings["use_rslora"] == lora.lora_use_rslora
    upon = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "adapter")
    assert torch.allclose(plain_logits(upon, model), ours, atol=1e-5)
    whole = AutoModelForCausalLM.from_pretrained(out / "llm")
    assert torch.allclose(plain_logits(whole, model), ours, atol=1e-5)
    theirs = upon.merge_and_unload().state_dict()
    for name, weight in whole.state_dict().items():
        assert torch.allclose(weight, theirs[name], atol=1e-6), name
    words = ["--adapter_dir", str(out / "adapter"), "--output_model_dir", str(tmp_path / "merged")]
    merge_adapter.main.__wrapped__(words)
    assert torch.allclose(logits_of(TokenModel.load(tmp_path / "merged")), ours, atol=1e-5)
    off = (logits_of(plain) - ours).abs().max()
    assert off > 0.1
    if lora.lora_use_dora:  # the lengths are in it: without them it would be another model
        moved = {n for n, p in model.named_parameters() if p.requires_grad}
        assert sum("lora_magnitude_vector" in name for name in moved) == 14
