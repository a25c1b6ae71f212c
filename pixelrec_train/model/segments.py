"""Where texts lie in a packed row, and the length buckets in which packed_attention reads them.

A text may fork: behind its trunk stand branches, each of which sees the trunk and itself. So answers to one
question are read with the question once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelrec_train.distributed import sent

MAX_BUCKETS = 8


@dataclass(frozen=True)
class Segments:
    """Where the texts of one packed row lie, on the device that computes."""

    position_ids: Tensor  # [T] 0, 1, 2, … inside each text
    last: Tensor  # [I] position of each text's last token
    boundaries: Tensor  # [I + 1] int32, for the variable-length kernel
    lengths: Tensor  # [I] on the CPU
    longest: int
    # (texts, longest) of each bucket, [S] position in the row of every slot of all buckets, [T] slot of every
    # position; None where the kernel reads the row as it is. A slot without a token has its text's first.
    buckets: list[tuple[int, int]] | None
    slots: Tensor | None
    back: Tensor | None
    sees: list[Tensor] | None = None  # per bucket: [texts, 1, longest, longest] bool, where a text forks

    @staticmethod
    def plan(lengths: Tensor, device, branch: Tensor | None = None, in_buckets=True) -> "Segments":
        """[I] lengths, all positive, on the CPU -> the plan, computed on the host, sent in one copy.

        Args:
            branch: of PackedTexts.
            in_buckets: False where reads_rows has said so.
        """
        on_host, lengths = lengths, lengths.numpy()
        ends = np.cumsum(lengths)
        starts = ends - lengths
        position = np.arange(ends[-1]) - np.repeat(starts, lengths)
        if branch is not None:
            branch = branch.numpy()
            position = forked(position, branch)
        parts = {"position": position, "last": ends - 1, "boundaries": np.concatenate([[0], ends])}
        buckets = None
        if in_buckets or branch is not None:
            buckets, placed = bucketed(lengths, starts, branch)
            parts |= placed
        parts = sent_as_one(parts, device)
        return Segments(
            position_ids=parts["position"],
            last=parts["last"],
            boundaries=parts["boundaries"].int(),
            lengths=on_host,
            longest=int(lengths.max()),
            buckets=buckets,
            slots=parts.get("slots"),
            back=parts.get("back"),
            sees=None if branch is None else [seen(parts[f"branch{n}"]) for n in range(len(buckets))],
        )


def bucketed(lengths, starts, branch):
    """(texts, longest) of each bucket; {name: array}: the slots of all, their branches, and the way back."""
    buckets, slots, parts = [], [], {}
    back, first = np.empty(lengths.sum(), np.int64), 0
    by_length = np.argsort(lengths, kind="stable")
    for n, texts in enumerate(np.array_split(by_length, min(MAX_BUCKETS, len(lengths)))):
        column = np.arange(lengths[texts].max())
        real = column < lengths[texts][:, None]
        rows = starts[texts][:, None] + np.where(real, column, 0)
        buckets.append(rows.shape)
        slots.append(rows.ravel())
        back[rows[real]] = first + np.flatnonzero(real)
        first += rows.size
        if branch is not None:
            parts[f"branch{n}"] = np.where(real, branch[rows], 0)
    return buckets, parts | {"slots": np.concatenate(slots), "back": back}


def sent_as_one(arrays, device):
    """{name: array of integers} -> the same of int64 tensors on the device, by a single copy."""
    flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]).astype(np.int64))
    parts = sent(flat, torch.device(device)).split([array.size for array in arrays.values()])
    return {name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)}


def seen(branch):
    """[n, S] numbers of branches -> [n, 1, S, S] whether the first of two places sees the second."""
    place = torch.arange(branch.shape[1], device=branch.device)
    same = (branch[:, None] == 0) | (branch[:, None] == branch[:, :, None])
    return (same & (place <= place[:, None]))[:, None]


def forked(position, branch):
    """[T] places in their texts -> [T] positions, those of every branch right behind the trunk's last.

    A branch is a run of one number; a text begins at position 0 with its trunk.
    """
    begins = np.flatnonzero(np.diff(branch, prepend=0) != 0)  # of branches, and of trunks behind a branch
    begins = begins[branch[begins] > 0]
    trunk = np.flatnonzero(branch == 0)
    ends = position[trunk[np.searchsorted(trunk, begins) - 1]] + 1  # of the trunk before each
    of = np.searchsorted(begins, np.flatnonzero(branch), side="right") - 1
    position = position.copy()
    position[branch > 0] = ends[of] + np.flatnonzero(branch) - begins[of]
    return position
