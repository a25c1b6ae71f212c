"""Which of two answers is better: losses of a model's log-probabilities beside those of a reference.

Shapes: B pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelrec_train.config.preferences import HINGE, IPO


def preference_loss(
    chosen: Tensor, rejected: Tensor, kind: str, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """[B] losses of log-ratios: log p(answer) - log p_reference(answer), of the better and of the worse one.

    sigmoid: -log σ(β h), h = chosen - rejected; with label_smoothing s it is (1 - s) of this and s of
        -log σ(-β h), for labels of which so many are wrong (conservative DPO).
    ipo: (h - 1 / 2β)², of log-ratios per token.
    hinge: max(0, 1 - β h).

    Source: Rafailov et al. (arXiv:2305.18290), eq. 7; Azar et al. (arXiv:2310.12036), eq. 17; Zhao et al.
        (arXiv:2305.10425).
    """
    h = chosen - rejected
    if kind == IPO:
        return (h - 1 / (2 * beta)) ** 2
    if kind == HINGE:
        return torch.relu(1 - beta * h)
    return -(1 - label_smoothing) * F.logsigmoid(beta * h) - label_smoothing * F.logsigmoid(-beta * h)
