"""The layers of a CPU: what transformers computes, and its gradients."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel, GemmaConfig, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from pixelrec_train.model import cpu_layers

CONFIG = dict(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1)
HEADS = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=8)


def backbone(kind=Qwen3Config):
    torch.manual_seed(0)
    return AutoModel.from_config(kind(**CONFIG, **HEADS)).train()


@pytest.fixture(autouse=True)
def nothing_too_small(monkeypatch):
    monkeypatch.setattr(cpu_layers, "ENOUGH", 0)
    monkeypatch.setattr(cpu_layers, "MANY", 0)
    monkeypatch.setattr(cpu_layers, "IN_CACHE", 64)  # so that there are several blocks


SHAPES, PRECISIONS = [(5,), (1, 7), (2, 3, 4), (0,)], [torch.float32, torch.bfloat16]


@given(st.sampled_from(SHAPES), st.sampled_from(PRECISIONS), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_norm_is_transformers_to_the_bit_and_its_gradients_are_exact(shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    theirs = Qwen3RMSNorm(24).to(dtype)
    theirs.weight.data = torch.randn(24, generator=generator).to(dtype)
    ours = copy.deepcopy(nn.Sequential(theirs))
    cpu_layers.put_in(ours)
    x = (torch.randn(*shape, 24, generator=generator) * 10 ** (seed % 5 - 2)).to(dtype)
    grad = torch.randn(*shape, 24, generator=generator).to(dtype)
    assert torch.equal(ours(x), theirs(x))
    exact = copy.deepcopy(theirs).double()
    exact.forward = lambda x: exact.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    found = [
        gradients(layer, x.to(kind), grad.to(kind)) for layer, kind in ((ours, dtype), (exact, torch.double))
    ]
    for of_ours, of_exact in zip(*found, strict=True):
        scale = of_exact.abs().max() if of_exact.numel() else 1
        tolerance = 2e-6 if dtype == torch.float32 else 2e-2
        assert of_ours.dtype == dtype and ((of_ours - of_exact).abs() <= tolerance * scale).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1, 300), (2, 3, 5)])
def test_a_linear_layer_is_torchs(bias, shape):
    torch.manual_seed(0)
    theirs = nn.Linear(16, 8, bias)
    ours = copy.deepcopy(nn.Sequential(theirs))
    cpu_layers.put_in(ours)
    x, grad = torch.randn(*shape, 16), torch.randn(*shape, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    for of_ours, of_theirs in zip(gradients(ours, x, grad), gradients(theirs, x, grad), strict=True):
        torch.testing.assert_close(of_ours, of_theirs)
    ours.requires_grad_(False)
    of_x, *others = gradients(ours, x, grad)
    torch.testing.assert_close(of_x, gradients(theirs, x, grad)[0])
    assert others == [None] * (1 + bias)


def gradients(layer, x, grad):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    layer(x).backward(grad)
    return [x.grad, *(parameter.grad for parameter in layer.parameters())]


def test_layers_keep_names_weights_and_kinds():
    before, model = backbone(), backbone()
    cpu_layers.put_in(model)
    cpu_layers.put_in(model)  # of a second owner: nothing more happens
    twin, again = copy.deepcopy(model), backbone()
    again.load_state_dict(model.state_dict())
    for (name, old), new, copied in zip(before.named_modules(), model.modules(), twin.modules(), strict=True):
        assert type(new) is type(old) or type(new).__mro__[1] is type(old), name
        assert type(new).__name__ == type(old).__name__
        assert type(copied) is type(new)
    assert changed_kinds(model) == {"Linear", "Qwen3RMSNorm"}


def changed_kinds(model):
    return {type(m).__name__ for m in model.modules() if type(m).__module__ == cpu_layers.__name__}


def test_other_norms_and_other_precisions_stay_as_they_are():
    model = backbone(GemmaConfig)  # adds 1 to the weight
    cpu_layers.put_in(model)
    assert changed_kinds(model) == {"Linear"}
    model = backbone()
    cpu_layers.put_in(model)
    before, x = Qwen3RMSNorm(16), torch.randn(3, 16)
    assert torch.equal(model.norm(x.bfloat16()), before(x.bfloat16()))  # fp32 weight: an fp32 result
    layer = model.layers[0].mlp.up_proj.double()
    assert torch.equal(layer(x.double()), F.linear(x.double(), layer.weight))


def test_a_compiler_and_an_export_see_plain_operations():
    model = nn.Sequential(nn.Linear(16, 16), Qwen3RMSNorm(16))
    cpu_layers.put_in(model)
    program = torch.export.export(model, (torch.randn(2, 16),))
    operations = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operations and not any("mkldnn" in name for name in operations), operations
    assert "aten.linear.default" in operations


FAULTS = """
import resource
import numpy as np
from pixelrec_train.run.resources import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(2**23)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux'")
def test_freed_memory_is_kept_for_what_comes_next():
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split())
    assert after < before / 10
