"""Offsets: what untrained recommenders say of an item, added to the towers' score times a learned factor.

The towers learn what the others do not know, and all of them together are one vector of a user and one of an
item: each recommender is a sum over the history's items (HistorySums).
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import read_tensors, save_tensors
from pixelrec_train.model.item_rows import at_rows, known_rows, write_ids
from pixelrec_train.untrained.history_sums import HistorySums, dense, largest

VECTORS, NAMES = "offsets.safetensors", "offsets.json"
INITIAL, STEP = (
    6.0,
    10.0,
)  # factors move STEP times as fast as other weights: they are far from 0


class Offsets(nn.Module):
    """K HistorySums of dense vectors, and how much each counts."""

    def __init__(self, sums: dict[str, HistorySums], item_ids: list[str], keep_seen: bool):
        """
        Args:
            item_ids: of the rows of their vectors.
            keep_seen: whether items of the history are candidates, in units of whose best score all are.
        """
        super().__init__()
        self.sums, self.item_ids, self.keep_seen = sums, item_ids, keep_seen
        self.weight = nn.Parameter(torch.full((len(sums),), INITIAL / STEP))

    @staticmethod
    def starting(known, item_ids, before=None) -> "Offsets":
        """What a run trains, of known_items.KnownItems; `before`: of --init_from, whose factors are kept."""
        offsets = Offsets(known.sums, item_ids, known.keep_seen)
        if before is not None and list(before.sums) == list(known.sums):
            offsets.weight = before.weight
        return offsets

    def forward(self, offsets: Tensor) -> Tensor:
        """[K, …] scaled scores -> […] what they add to the towers' score."""
        return torch.einsum("k,k...->...", self.weight.float() * STEP, offsets)

    @property
    def catalogue(self) -> np.ndarray:
        """[num_items, F] fp32, the vectors of all recommenders end to end."""
        return np.concatenate([sums.right for sums in self.sums.values()], axis=1)

    def users(self, histories, weight) -> Tensor:
        """b histories -> [b, F] fp32 on the CPU: its product with the catalogue's is what forward gives.

        weight: [K] its parameter, whole.
        """
        parts = []
        for factor, sums in zip((weight.float() * STEP).tolist(), self.sums.values(), strict=True):
            users = dense(sums.users(histories)).astype(np.float32)
            parts.append(factor * users / largest(users @ sums.right.T, histories, self.keep_seen))
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def export(self, directory, weight):
        """weight: [K], complete."""
        tensors = {"weight": weight}
        for name, sums in self.sums.items():
            tensors |= {f"{name}.{side}": torch.from_numpy(getattr(sums, side)) for side in ("left", "right")}
        save_tensors(tensors, Path(directory) / VECTORS)
        how = {"keep_seen": self.keep_seen}
        how["sums"] = {name: (sums.recent, sums.decay) for name, sums in self.sums.items()}
        write_ids(directory, self.item_ids)
        (Path(directory) / NAMES).write_text(json.dumps(how, indent=1), encoding="utf-8")

    @staticmethod
    def load(directory, item_ids, dtype) -> "Offsets | None":
        """A checkpoint's, for these items: one that it does not know adds nothing and gets nothing."""
        if not (Path(directory) / VECTORS).is_file():
            return None
        tensors = read_tensors(Path(directory) / VECTORS)
        try:
            told = json.loads((Path(directory) / NAMES).read_text("utf-8"))
            how = told["sums"]
            sides = {name: [tensors[f"{name}.{side}"].numpy() for side in ("left", "right")] for name in how}
            rows = known_rows(directory, item_ids, len(next(iter(sides.values()))[0]))
            offsets = Offsets(
                {
                    name: HistorySums(*(at_rows(side, rows) for side in sides[name]), *one)
                    for name, one in how.items()
                },
                item_ids,
                told["keep_seen"],
            )
            offsets.weight.data = tensors["weight"].to(dtype)
        except (OSError, KeyError, ValueError, StopIteration, TypeError):
            raise InputError(f"{directory} is damaged: its {NAMES} does not fit its {VECTORS}.") from None
        return offsets
