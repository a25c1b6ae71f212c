"""A vocabulary's table whose last rows, those of new tokens, are a Parameter of their own.

So they can be trained alone: no gradient is masked and nothing restored after a step, and the optimizer holds
no moments of rows that stand still.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train.model.normaliser import score_some


class SplitRows(nn.Module):
    """One table in two Parameters: the rows of the base model's words, and of new tokens, if any."""

    def __init__(self, weight: Tensor, first_new: int, stop: int):
        super().__init__()
        self.old_rows = nn.Parameter(weight[:first_new].detach().clone())
        new = nn.Parameter(weight[first_new:stop].detach().clone())
        self.register_parameter("new_rows", new if len(new) else None)

    def forward(self, use, *inputs):
        """use(*inputs, old_rows, new_rows), or without new_rows. Whoever reads the rows does it in here:
        elsewhere ZeRO-3 has cut them to shards."""
        rows = (self.old_rows,) if self.new_rows is None else (self.old_rows, self.new_rows)
        return use(*inputs, *rows)


def look_up(token_ids, old_rows, new_rows=None):
    """[…] ids -> […, D]"""
    if new_rows is None:
        return F.embedding(token_ids, old_rows)
    is_new = token_ids >= len(old_rows)
    old = F.embedding(token_ids.masked_fill(is_new, 0), old_rows)
    new = F.embedding((token_ids - len(old_rows)).clamp(min=0), new_rows)
    return torch.where(is_new[..., None], new, old)


def score_new(hidden, token_ids, old_rows, new_rows):
    """normaliser.score_some of itemic tokens."""
    return score_some(hidden, token_ids - len(old_rows), new_rows)
