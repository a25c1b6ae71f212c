"""Offsets: what untrained recommenders say of an item, added to the towers' score times a learned factor.

The towers learn what the others do not know, and all of them together are one vector of a user and one of an
item: each recommender is a sum over the history's items (HistorySums).
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelrec_train.config.known import REPEATS
from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import read_tensors, save_tensors
from pixelrec_train.model.item_rows import at_rows, known_rows, write_ids
from pixelrec_train.untrained.history_sums import HistorySums, dense, largest, taken_before

VECTORS, NAMES = "offsets.safetensors", "offsets.json"
INITIAL = 6.0  # of similarities; REPEATS begin at 0, as people may take items again or never
STEP = 10.0  # factors move so many times as fast as other weights: they are far from 0


class Offsets(nn.Module):
    """K HistorySums, and how much each counts.

    Those with a column for each item share these columns: their users' vectors are added.
    """

    def __init__(self, sums: dict[str, HistorySums], item_ids: list[str], keep_seen: bool):
        """
        Args:
            item_ids: of the rows of their vectors.
            keep_seen: whether items of the history are candidates, in units of whose best score all are.
        """
        super().__init__()
        self.sums, self.item_ids, self.keep_seen = sums, item_ids, keep_seen
        factors = [0.0 if name in REPEATS else INITIAL for name in sums]
        self.weight = nn.Parameter(torch.tensor(factors) / STEP)

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
        parts = [sums.right for sums in self.sums.values() if sums.right is not None]
        if len(parts) < len(self.sums):
            parts.append(np.eye(len(self.item_ids), dtype=np.float32))
        return np.concatenate(parts, axis=1)

    def users(self, histories, weight) -> Tensor:
        """b histories -> [b, F] fp32 on the CPU: its product with the catalogue's is what forward gives.

        weight: [K] its parameter, whole.
        """
        parts, shared = [], []
        for factor, sums in zip((weight.float() * STEP).tolist(), self.sums.values(), strict=True):
            users = dense(sums.users(histories)).astype(np.float32)
            scores = users if sums.right is None else users @ sums.right.T
            (shared if sums.right is None else parts).append(
                factor * users / largest(scores, histories, self.keep_seen)
            )
        if shared:
            parts.append(sum(shared))
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def export(self, directory, weight):
        """weight: [K], complete."""
        tensors = {"weight": weight}
        for name, sums in self.sums.items():
            sides = {"left": sums.left, "right": sums.right}
            tensors |= {
                f"{name}.{side}": torch.from_numpy(table)
                for side, table in sides.items()
                if isinstance(table, np.ndarray)  # what is not there is the identity
            }
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
            tables = {name: tensor.numpy() for name, tensor in tensors.items() if name != "weight"}
            rows = known_rows(directory, item_ids, len(next(iter(tables.values()), ())) or None)
            sums = {name: sums_at(rows, name, tables, *how) for name, how in told["sums"].items()}
            offsets = Offsets(sums, item_ids, told["keep_seen"])
            offsets.weight.data = tensors["weight"].to(dtype)
        except (OSError, KeyError, ValueError, StopIteration, TypeError, IndexError):
            raise InputError(f"{directory} is damaged: its {NAMES} does not fit its {VECTORS}.") from None
        return offsets


def sums_at(rows, name, tables, recent, decay):
    """HistorySums of a checkpoint, its items numbered as `rows` has them."""
    if name in REPEATS:
        return taken_before(len(rows), recent)
    left, right = at_rows(tables[f"{name}.left"], rows), tables.get(f"{name}.right")
    if right is None:  # its columns are items, too
        return HistorySums(np.ascontiguousarray(at_rows(left.T, rows).T), None, recent, decay)
    return HistorySums(left, at_rows(right, rows), recent, decay)
