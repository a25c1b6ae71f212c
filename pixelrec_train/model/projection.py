"""A learned linear map from the item LLM's embeddings to what the user LLM reads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Module):
    """Starts as the identity between equal widths, else with orthonormal rows or columns: up to their
    widths, cosines of texts are at first what they were."""

    def __init__(self, weight: Tensor):
        """weight: [width of the user LLM, width of the item LLM's embeddings]."""
        super().__init__()
        self.weight = nn.Parameter(weight)

    @staticmethod
    def between(item_width, user_width, wanted) -> "Projection | None":
        """A new one where widths differ, or it is wanted all the same."""
        if item_width == user_width:
            return Projection(torch.eye(user_width)) if wanted else None
        return Projection(nn.init.orthogonal_(torch.empty(user_width, item_width)))

    def forward(self, embeddings: Tensor) -> Tensor:
        """[I, item width] -> [I, user width]"""
        return F.linear(embeddings, self.weight)
