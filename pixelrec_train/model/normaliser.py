"""Scores of some words, and the normaliser over all: most of what decoding with a small model costs.

The scores of a whole vocabulary are never there at once: a block of its rows is scored, summed, forgotten.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelrec_train.model.cpu_layers import has_onednn, linear

ROWS_PER_BLOCK = 8192  # of a GPU
# Of a CPU: the scores of a block, 1 MB, stay in a core's cache, and their memory is kept from block to block.
SCORES_IN_CACHE, STATES_AT_ONCE = 2**18, 256
# The same 1 MB of scores; 2,048 rows of 128 states take less time than 1,024 of 256.
PACKED_ROWS, PACKED_STATES = 2048, 128
FEW = 8  # states, for which a product is faster when the vocabulary's rows stand on the left


def score_some(hidden: Tensor, token_ids: Tensor, table: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., H], [n] rows of the table -> [..., n] scores; or [..., F] rows, each state's own -> [..., F]."""
    rows, bias = table[token_ids], None if bias is None else bias[token_ids]
    if token_ids.dim() == 1:
        return F.linear(hidden, rows, bias)
    scores = (rows @ hidden[..., None])[..., 0]
    return scores if bias is None else scores + bias


class Packed:
    """Tables that stand still, laid out once as oneDNN multiplies by them, and not in every product.

    They are in memory a second time. Where an operation of torch changed them all the same, they are laid out
    anew; what is written past it (DeepSpeed's flat parameters) would go unseen.
    """

    def __init__(self):
        self.made = [], []  # of which (table, its version), [[v, H] in oneDNN's own layout]

    def __reduce__(self):
        return Packed, ()  # oneDNN's tensors cannot be copied: a copy lays out its own

    def of(self, tables):
        """The blocks of [V_i, H] tables on the CPU."""
        made_of, blocks = self.made
        # A table that is kept here keeps its memory: no other one can lie at its address.
        now = [(table.data_ptr(), table._version) for table in tables]
        if now != [(table.data_ptr(), version) for table, version in made_of]:
            self.made = [], []
            tables = [table.detach() for table in tables]
            blocks = [
                torch.ops.mkldnn._reorder_linear_weight(block, PACKED_STATES)
                for table in tables
                for block in table.split(PACKED_ROWS)
            ]
            self.made = [(table, table._version) for table in tables], blocks
        return blocks


def log_norm(hidden: Tensor, *tables: Tensor, bias: Tensor | None = None, packed=None) -> Tensor:
    """[..., H] -> [...] fp32 log of the summed exp of the scores of all rows of all tables.

    Args:
        tables: [V_i, H] each.
        bias: [V], of a single table; None = there is none.
        packed: a Packed, always given with these tables; None = they may change.
    """
    states = hidden.flatten(0, -2)
    if packed is not None and plain_on_cpu(states) and has_onednn():
        count, size, blocks, score = PACKED_STATES, PACKED_ROWS, packed.of(tables), linear
    else:
        count = len(states) if states.is_cuda else STATES_AT_ONCE
        size = ROWS_PER_BLOCK if states.is_cuda else min(2048, SCORES_IN_CACHE // min(count, len(states)))
        blocks, score = [block for table in tables for block in table.split(size)], scored
    biases = [None] * len(blocks) if bias is None else bias.split(size)
    at_once = states.split(count)
    parts = [
        torch.cat([log_sum(score(some, block, of_block)) for some in at_once])
        for block, of_block in zip(blocks, biases, strict=True)
    ]
    return torch.stack(parts).logsumexp(0).unflatten(0, hidden.shape[:-1])


def scored(states, block, bias):
    """[n, H], [v, H], [v] or None -> [n, v] fp32"""
    if not plain_on_cpu(states):
        return F.linear(states, block, bias).float()
    if len(states) <= FEW and bias is None:
        return (block @ states.T).T
    return linear(states, block, bias)


def plain_on_cpu(states):
    """Whether products are of fp32, on the CPU, and without gradient."""
    return states.device.type == "cpu" and states.dtype == torch.float32 and not torch.is_grad_enabled()


def log_sum(scores):
    """[n, v] -> [n] log of the summed exp; log_softmax is one pass over memory, logsumexp is five."""
    return scores.amax(-1) - scores.log_softmax(-1).amax(-1)
