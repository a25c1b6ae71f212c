"""Linear layers and RMS norms of a transformer, as a CPU computes them fastest.

oneDNN's fp32 products take nine tenths of the time of MKL's, which torch uses (on an AMD EPYC), and a norm
goes through memory once per pass instead of once per operation. On a GPU, in a compiler, and where there is
little to do, the layers do what they did.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

ENOUGH = 2**28  # multiplications of a product; below, a shape new to oneDNN costs what it saves, 0.5 ms
MANY = 2**16  # numbers to be normalised; below, they are near as it is
IN_CACHE = 2**17  # numbers of a block of rows: half a MB, which a core keeps near


@torch.no_grad()
def put_in(backbone: nn.Module):
    """Give its nn.Linear, and its norms that are plain RMS norms, the forward passes of this file.

    Names, weights and what isinstance says stay as they are; a copy of the backbone has them, too.
    """
    for module in backbone.modules():
        if type(module) is nn.Linear and has_onednn():
            module.__class__ = Linear
        elif type(module).__module__ != __name__ and is_rms_norm(module):
            module.__class__ = as_rms_norm(type(module))


def has_onednn():
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_rms_norm(module):
    """Whether it computes weight * (x / RMS(x)), tried on a few numbers: some add 1 to the weight."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if epsilon is None or getattr(weight, "ndim", 0) != 1 or not on_cpu(weight):
        return False
    probe = torch.randn(3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    out = module(probe)
    return isinstance(out, torch.Tensor) and torch.equal(out, Normalise.apply(probe, weight, epsilon))


def on_cpu(x):
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def linear(x, weight, bias=None):
    """F.linear in fp32 on a CPU, by oneDNN where this torch has it; no gradient."""
    if has_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    def forward(self, x):
        """[..., in] -> [..., out]"""
        in_fp32 = x.dtype == self.weight.dtype == torch.float32
        if in_fp32 and on_cpu(x) and x.numel() * self.out_features >= ENOUGH:
            return Product.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


class Product(torch.autograd.Function):
    """linear with its gradients; that of the weight is MKL's, whose product is as fast there."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            linear(grad, weight.t().contiguous()) if of_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


@functools.cache
def as_rms_norm(kind):
    """The class of norm with its forward pass changed, and its name, which transformers looks at."""

    def forward(self, x):
        """[..., D] -> [..., D]"""
        if on_cpu(x) and x.numel() >= MANY and x.dtype == self.weight.dtype:
            return Normalise.apply(x, self.weight, self.variance_epsilon)
        return kind.forward(self, x)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": __name__})


class Normalise(torch.autograd.Function):
    """weight * (x / sqrt(mean(x²) + epsilon)) over the last dimension, in fp32 (Zhang & Sennrich 2019).

    Forward the operations of transformers' norms in their order, so the result is theirs to the bit.
    """

    @staticmethod
    def forward(ctx, x, weight, epsilon):
        out, scale = torch.empty(x.shape, dtype=x.dtype), torch.empty(*x.shape[:-1], 1)
        for of_x, of_out, of_scale in blocks(x, out, scale):
            exact = of_x.float()
            torch.mean(exact.square(), -1, keepdim=True, out=of_scale)
            of_scale.add_(epsilon).rsqrt_()
            of_out.copy_(exact.mul(of_scale)).mul_(weight)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        of_x, of_weight = torch.empty(x.shape, dtype=x.dtype), torch.zeros(weight.shape)
        for g, numbers, s, out in blocks(grad, x, scale, of_x):
            g, normal = g.float(), numbers.float() * s
            product = g * normal
            of_weight += product.sum(0)
            mean = product.mul_(weight).mean(-1, keepdim=True)
            out.copy_((g * weight).addcmul_(normal, mean, value=-1).mul_(s))
        return of_x, of_weight.to(weight.dtype), None


def blocks(x, *others):
    """[..., D] each, or [..., 1] -> their rows, a block at a time."""
    rows = max(IN_CACHE // x.shape[-1], 1)
    return zip(*(y.reshape(-1, y.shape[-1]).split(rows) for y in (x, *others)), strict=True)
