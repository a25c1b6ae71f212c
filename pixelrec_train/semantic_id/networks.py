"""The small networks around the codebooks of an RQ-VAE: what they quantise, and back."""

import torch
from torch import Tensor, nn


def build_encoder(width, hidden, code_width, unit=None):
    """[N, width] -> [N, code_width].

    Args:
        hidden: widths between the two.
        unit: None = an MLP; else the typical size of an entry, for x + MLP(x), which starts as x itself.
    """
    layers = perceptron([width, *hidden, code_width])
    return layers if unit is None else Residual(layers, unit)


def perceptron(widths):
    """Linear layers with ReLU in between, as in TIGER and LC-Rec."""
    layers = []
    for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(before, after)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """x + MLP(x), the last layer zero at first, so that it starts as the identity.

    Source: RQ-KMeans+, as MiniOneRec has it.
    """

    def __init__(self, layers: nn.Sequential, unit: float):
        """unit: typical size of an entry of x; the layers see entries around 1, and give such."""
        super().__init__()
        self.layers, self.unit = layers, unit
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.unit * self.layers(x / self.unit)


@torch.no_grad()
def typical_size(x: Tensor) -> float:
    """Root mean square of the entries."""
    return max(float(x.float().pow(2).mean().sqrt()), 1e-12)
