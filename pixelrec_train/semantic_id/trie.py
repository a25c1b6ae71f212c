"""The catalogue as a prefix tree of semantic ids, flat tensors level by level, for beams on any device.

Nodes of a level are numbered in the order of their ids, so the edge number e of level l leads to node e of
level l + 1: no table of next nodes is needed. A node of level L is a leaf: one semantic id and its items.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixelrec_train.semantic_id.codes import ABSENT


@dataclass(frozen=True)
class Trie:
    """Edges of node n of level l are row_ptr[l][n] … row_ptr[l][n + 1] - 1, in the order of their codes.

    An id that is shorter than L levels goes on with edges of code ABSENT, so every leaf lies at level L. The
    parts about items are numpy arrays and stay on the CPU: a search ends in leaves.
    """

    row_ptr: tuple[Tensor, ...]  # L of [nodes of the level + 1] int64; level 0 is the root alone
    codes: tuple[Tensor, ...]  # L of [edges of the level] int64
    fanout: tuple[int, ...]  # [L] most edges of one node
    leaf_ptr: np.ndarray  # [leaves + 1] items of leaf n are leaf_items[leaf_ptr[n] : leaf_ptr[n + 1]]
    leaf_items: np.ndarray  # [items in the trie] item numbers, within a leaf by popularity, then number
    leaf_of: np.ndarray  # [N] leaf of every item of the catalogue, -1 where the trie lacks it

    @staticmethod
    def of(codes, popularity=None, items=None) -> "Trie":
        """The trie of a catalogue or of a part of it.

        Args:
            codes: [N, L] of SemanticIds.of(item ids of the catalogue).
            popularity: [N] occurrences in training; what items of one id are ordered by, highest first,
                equal ones by their number. None = by number alone.
            items: the item numbers that may be recommended; None = all N.

        Raises:
            ValueError: there is no item to recommend.
        """
        items = np.arange(len(codes)) if items is None else np.unique(items)
        if not len(items):
            raise ValueError("a trie needs at least one item")
        rows = codes[items]
        keys = sort_keys(rows)
        if popularity is not None:
            keys = [-np.asarray(popularity, np.int64)[items], *keys]
        order = np.lexsort(keys)  # stable: equals stay in the order of item numbers
        rows, items = rows[order], items[order]

        starts = np.ones(rows.shape, bool)  # [n, L] whether a row is the first with its codes 0 … l
        starts[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
        row_ptr, level_codes, parents = [], [], np.zeros(1, np.int64)
        for level in range(rows.shape[1]):
            edges = np.flatnonzero(starts[:, level])  # first row of each
            row_ptr.append(np.append(np.searchsorted(edges, parents), len(edges)))
            level_codes.append(rows[edges, level].astype(np.int64))
            parents = edges
        leaf_of = np.full(len(codes), -1)
        leaf_of[items] = np.cumsum(starts[:, -1]) - 1
        return Trie(
            tuple(map(torch.from_numpy, row_ptr)), tuple(map(torch.from_numpy, level_codes)),
            tuple(int(np.diff(ptr).max()) for ptr in row_ptr),
            np.append(parents, len(items)), items, leaf_of,
        )  # fmt: skip

    @property
    def levels(self) -> int:
        return len(self.codes)

    @property
    def num_leaves(self) -> int:
        return len(self.codes[-1])

    def to(self, device) -> "Trie":
        """The same with the search's part on this device."""
        row_ptr, codes = (tuple(t.to(device) for t in part) for part in (self.row_ptr, self.codes))
        return replace(self, row_ptr=row_ptr, codes=codes)

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The edges of nodes of a level, padded to the level's largest fan-out F; nothing waits for a GPU.

        Args:
            nodes: [...] int64 numbers of nodes of this level.

        Returns:
            [..., F] codes, [..., F] nodes of the next level, [..., F] bool: False where it is padding, whose
            code and node are those of some other edge.
        """
        ptr = self.row_ptr[level]
        offset = torch.arange(self.fanout[level], device=ptr.device)
        first = ptr[nodes][..., None]
        real = offset < ptr[nodes + 1][..., None] - first
        edges = (first + offset).clamp(max=len(self.codes[level]) - 1)
        return self.codes[level][edges], edges, real

    def ids(self) -> np.ndarray:
        """[leaves, L] codes of every leaf."""
        ids, nodes = np.empty((self.num_leaves, self.levels), np.int64), np.arange(self.num_leaves)
        for level in reversed(range(self.levels)):
            ids[:, level] = self.codes[level].cpu().numpy()[nodes]
            nodes = np.searchsorted(self.row_ptr[level].cpu().numpy(), nodes, side="right") - 1
        return ids


def sort_keys(rows):
    """Keys for np.lexsort that order ids code by code; one number, which is faster, where 64 bits hold it."""
    widths = rows.max(axis=0).astype(object) + 2  # ABSENT among them
    if widths.prod() >= 2**63:
        return list(rows.T[::-1])
    key = np.zeros(len(rows), np.int64)
    for column, width in zip(rows.T, widths, strict=True):
        key = key * int(width) + (column - ABSENT)
    return [key]
