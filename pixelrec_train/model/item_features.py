"""Vectors of items that are known beforehand, joined to what the text says by a small network."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train.model.backbone import read_tensors, save_tensors
from pixelrec_train.model.item_rows import at_rows, known_rows, write_ids

FILE = "item_features.safetensors"


class ItemFeatures(nn.Module):
    """Text embedding and known vectors, end to end, through two layers; ids are added, the sum is normed."""

    def __init__(self, features: Tensor, item_ids: list[str], text_width: int, width: int):
        """
        Args:
            features: [num_items, F]; item_ids: of its rows.
            text_width: of the text's embeddings, 0 where no text is read; width: D of those made here.
        """
        super().__init__()
        self.register_buffer("features", features, persistent=False)
        self.item_ids = item_ids
        self.inner = nn.Linear(text_width + features.shape[1], 2 * width)
        self.outer = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = 0.0

    @staticmethod
    def starting(known, item_ids, model, hllm) -> "ItemFeatures":
        """What a run trains, of known_items.KnownItems; an HLLMModel of --init_from brings its network.

        hllm: HllmFlags.
        """
        features = model.item_features
        if features is None or features.features.shape != known.features.shape:
            width = text_width = model.user_llm.backbone.config.hidden_size
            if model.projection is None:
                text_width = 0 if model.item_llm is None else model.item_llm.width
            features = ItemFeatures(known.features, item_ids, text_width, width)
        features.features, features.dropout = known.features, hllm.item_dropout
        return features

    def forward(self, texts: Tensor | None, numbers: Tensor, ids: Tensor | None) -> Tensor:
        """[I, text_width] embeddings, [I] numbers, [I, D] vectors of ids -> [I, D]."""
        weight = self.inner.weight
        known = self.features[numbers].to(weight.dtype)
        if texts is not None:
            known = torch.cat([F.normalize(texts, dim=-1).to(weight.dtype), known], dim=1)
        hidden = F.gelu(self.inner(F.dropout(known, self.dropout, self.training)))
        items = self.outer(F.dropout(hidden, self.dropout, self.training))
        return self.norm(items if ids is None else items + ids)

    def export(self, directory, tensors):
        """tensors: its complete state dict."""
        save_tensors({"features": self.features.float().cpu(), **tensors}, Path(directory) / FILE)
        write_ids(directory, self.item_ids)

    @staticmethod
    def load(directory, item_ids, dtype) -> "ItemFeatures | None":
        """A checkpoint's, for these items; one that it does not know has its text alone."""
        if not (Path(directory) / FILE).is_file():
            return None
        tensors = read_tensors(Path(directory) / FILE)
        table = tensors.pop("features").numpy()
        rows = known_rows(directory, item_ids, len(table))
        width, joined = len(tensors["outer.weight"]), tensors["inner.weight"].shape[1]
        table = torch.from_numpy(at_rows(table, rows))
        features = ItemFeatures(table, item_ids, joined - table.shape[1], width)
        features.load_state_dict(tensors)
        return features.to(dtype)
