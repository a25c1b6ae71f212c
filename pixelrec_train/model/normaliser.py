"""Scores of some words, and the normaliser over all: most of what decoding with a small model costs.

The scores of a whole vocabulary are never there at once: a block of its rows is scored, summed, forgotten.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_PER_BLOCK = 8192  # of a GPU
# Of a CPU: the scores of a block, 1 MB, stay in a core's cache, and their memory is kept from block to block.
SCORES_IN_CACHE, STATES_AT_ONCE = 2**18, 256
FEW = 8  # states, for which a product is faster when the vocabulary's rows stand on the left


def score_some(hidden: Tensor, token_ids: Tensor, table: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., H], [n] rows of the table -> [..., n] scores; or [..., F] rows, each state's own -> [..., F]."""
    rows, bias = table[token_ids], None if bias is None else bias[token_ids]
    if token_ids.dim() == 1:
        return F.linear(hidden, rows, bias)
    scores = (rows @ hidden[..., None])[..., 0]
    return scores if bias is None else scores + bias


def log_norm(hidden: Tensor, *tables: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., H] -> [...] fp32 log of the summed exp of the scores of all rows of all tables.

    Args:
        tables: [V_i, H] each.
        bias: [V], of a single table; None = there is none.
    """
    states = hidden.flatten(0, -2)
    at_once = states.split(len(states) if states.is_cuda else STATES_AT_ONCE)
    size = ROWS_PER_BLOCK if states.is_cuda else min(2048, SCORES_IN_CACHE // len(at_once[0]))
    blocks = [block for table in tables for block in table.split(size)]
    biases = [None] * len(blocks) if bias is None else bias.split(size)
    parts = [
        torch.cat([log_sum(scored(some, block, of_block)) for some in at_once])
        for block, of_block in zip(blocks, biases, strict=True)
    ]
    return torch.stack(parts).logsumexp(0).unflatten(0, hidden.shape[:-1])


def scored(states, block, bias):
    """[n, H], [v, H], [v] or None -> [n, v] fp32"""
    if states.device.type != "cpu" or states.dtype != torch.float32 or torch.is_grad_enabled():
        return F.linear(states, block, bias).float()
    if len(states) <= FEW and bias is None:
        return (block @ states.T).T
    return linear_on_cpu(states, block, bias)


def linear_on_cpu(states, rows, bias):
    """F.linear in fp32 by oneDNN, whose products of few states with many rows take 5/6 of MKL's time."""
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return torch.ops.mkldnn._linear_pointwise(states, rows, bias, "none", [], "")
    return F.linear(states, rows, bias)


def log_sum(scores):
    """[n, v] -> [n] log of the summed exp; log_softmax is one pass over memory, logsumexp is five."""
    return scores.amax(-1) - scores.log_softmax(-1).amax(-1)
