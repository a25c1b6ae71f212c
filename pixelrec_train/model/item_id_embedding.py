"""One learnable vector per item id: added to an item's text embedding, or in its place."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train.model.backbone import read_tensors, save_tensors
from pixelrec_train.model.item_rows import at_rows, known_rows, write_ids

VECTORS = "item_id_embedding.safetensors"


class ItemIdEmbedding(nn.Module):
    """Row i belongs to item i of the catalogue.

    Cold items have none: their rows start at zero and stay there, as no gradient reaches them and decay
    keeps a zero. Added to texts, a new row starts at zero, so that training starts from the texts alone.

    Source: HLLM (arXiv:2409.12740), "item id" ablation.
    """

    def __init__(self, weight: Tensor, item_ids: list[str]):
        """weight: [num_items, D]; item_ids: the CSV's id of every row."""
        super().__init__()
        self.weight, self.item_ids = nn.Parameter(weight), item_ids

    @staticmethod
    def new(item_ids, width, train_counts, alone) -> "ItemIdEmbedding":
        """alone: without a text embedding to add to, rows of training items start random (std 0.02)."""
        return ItemIdEmbedding(torch.zeros(len(item_ids), width), item_ids).settle(train_counts, alone)

    @torch.no_grad()
    def settle(self, train_counts, alone) -> "ItemIdEmbedding":
        """Make rows ready to train on this data: none for its cold items, new ones where none is yet."""
        cold, new = torch.from_numpy(train_counts == 0), ~self.weight.any(1)
        if alone:
            self.weight[new] = torch.empty_like(self.weight).normal_(std=0.02)[new]
        self.weight[cold] = 0
        return self

    def forward(self, numbers: Tensor) -> Tensor:
        """[I] item numbers -> [I, D]."""
        return F.embedding(numbers, self.weight)

    def export(self, directory, weight):
        """Vectors and the ids they belong to, so that another file's numbering can find them."""
        save_tensors({"weight": weight}, Path(directory) / VECTORS)
        write_ids(directory, self.item_ids)

    @staticmethod
    def load(directory, item_ids, dtype) -> "ItemIdEmbedding | None":
        """A checkpoint's vectors for these items, zero for those it does not know; None if it has none.

        Raises:
            InputError: it knows none of them.
        """
        if not (Path(directory) / VECTORS).is_file():
            return None
        known = read_tensors(Path(directory) / VECTORS)["weight"]
        rows = known_rows(directory, item_ids, len(known))
        weight = torch.from_numpy(at_rows(known.float().numpy(), rows)).to(dtype)
        return ItemIdEmbedding(weight, item_ids)
