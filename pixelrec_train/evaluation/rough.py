"""Rough scores of a whole catalogue, block by block, with a bound that says how rough they are.

What is ranked by is the fp32 score of exact.py, computed one pair at a time; a product of matrices is rounded
otherwise, and differently for every shape. So products only say which pairs need a closer look.
"""

import torch

from pixelrec_train.evaluation.vectors import SLACK, longest

ITEMS_PER_BLOCK = 8192  # with 256 users their scores stay in a processor's cache
ITEMS_PER_BLOCK_ON_GPU = 1 << 17
TINY = 1e-30


def rough_scores(vectors):
    """Int8 or Fp32 of Vectors: the one place that says where products of bytes pay.

    The processor names the capability: with VNNI or AMX (of what x86 makes since 2019) they take half the
    time of those in bf16, and are exact in int32. Elsewhere they are slower than fp32, or saturate; GPUs are
    left with fp32, of which they have plenty.
    """
    if vectors.device.type == "cpu" and bytes_pay():
        return Int8(vectors, ITEMS_PER_BLOCK)
    return Fp32(vectors, ITEMS_PER_BLOCK if vectors.device.type == "cpu" else ITEMS_PER_BLOCK_ON_GPU)


def bytes_pay():
    return torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()


class Asked:
    """Users, as rough scores are asked for them: the inner product of a user b and an item is within bound[b]
    of unit[b] * rough score + shift[b]."""

    def __init__(self, operand, unit, shift, bound):
        """operand: [b, D] of products; unit, shift, bound: [b] fp64."""
        self.operand, self.unit, self.shift, self.bound = operand, unit, shift, bound

    def surely_below(self, values):
        """[b] rough scores: an item under it scores less than [b] fp64 values."""
        return self.rounded((values - self.shift - self.bound) / self.unit, torch.floor)

    def surely_above(self, values):
        """[b] rough scores: an item over it scores more than [b] fp64 values."""
        return self.rounded((values - self.shift + self.bound) / self.unit, torch.ceil)

    def rivals(self, levels):
        """[b] rough scores: an item under it scores less than any with a rough score of [b] levels."""
        return self.rounded(levels.double() - 2 * self.bound / self.unit, torch.floor)

    def rounded(self, levels, away):
        if self.operand.dtype == torch.int8:
            return away(levels).clamp(-(2.0**31) + 1, 2.0**31 - 1).to(torch.int32)
        return levels.float()


class Fp32:
    """Products in fp32 (TF32 is off: its bound is another one). For sums in any order
    |rounded - true| <= g |user| |item|, g = D u / (1 - D u), u = 2^-24 (Higham, Accuracy and Stability, 3.1).
    """

    def __init__(self, vectors, columns=ITEMS_PER_BLOCK):
        self.vectors, self.blocks = vectors, ranges(len(vectors), columns)
        terms = vectors.width * 2.0**-24
        self.bound = (terms / (1 - terms) + SLACK) * vectors.longest + TINY

    def ask(self, queries):
        """[b, D] fp64, of values that fp32 has -> Asked."""
        ones = queries.new_ones(len(queries))
        bound = queries.norm(dim=1) * self.bound + TINY
        return Asked(queries.float(), ones, torch.zeros_like(ones), bound)

    def scores(self, operand, number):
        """[b, n] fp32 of one block."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            parts = [operand @ part.T for part in self.vectors.parts(*self.blocks[number])]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        finally:
            torch.set_float32_matmul_precision(before)


class Int8:
    """Products of bytes, each user and the catalogue on its own scale; summed in int32, without rounding.

    Items are taken from their mean first, which moves all scores of a user alike. With q', x' the rounded
    vectors |q x - q' x'| <= |q| |x - x'| + |q - q'| |x'|, of the norms as they are.
    """

    def __init__(self, vectors, columns):
        count, self.blocks, self.lost, self.longest = len(vectors), [], 0.0, 0.0
        total, most, least = 0.0, None, None
        for part in vectors.parts(0, count):
            high, low = part.amax(dim=0), part.amin(dim=0)
            most, least = (high, low) if most is None else (most.maximum(high), least.minimum(low))
            total = total + part.sum(dim=0, dtype=torch.float64)
        self.centre = (total / count).float()  # or any other vector near them
        widest = torch.maximum(most - self.centre, self.centre - least).max()
        self.step = max(float(widest) / 127, TINY)
        for first, end in ranges(count, columns):
            # Not .T.contiguous(), whose strides of one dimension of 1 oneDNN takes for others.
            self.blocks.append(torch.empty(vectors.width, end - first, dtype=torch.int8))
            at = 0
            for few in vectors.parts(first, end):
                self.blocks[-1][:, at : at + len(few)] = self.in_bytes(few).T
                at += len(few)
        self.slack = SLACK * (self.longest + self.lost + vectors.longest + float(self.centre.norm()))

    def in_bytes(self, vectors):
        moved = vectors - self.centre
        whole = moved.mul(1 / self.step).round_()
        made = whole.to(torch.int8)
        self.longest = max(self.longest, longest(whole.mul_(self.step)))
        self.lost = max(self.lost, longest(moved.sub_(whole)))
        return made

    def ask(self, queries):
        """[b, D] fp64, of values that fp32 has -> Asked."""
        step = (queries.abs().amax(dim=1) / 127).clamp_min(TINY)
        whole = (queries / step[:, None]).round()
        error = (queries - step[:, None] * whole).norm(dim=1)
        bound = queries.norm(dim=1) * (self.lost + self.slack) + error * self.longest * (1 + SLACK) + TINY
        shift = queries @ self.centre.double()
        return Asked(whole.to(torch.int8), step * self.step, shift, bound)

    def scores(self, operand, number):
        """[b, n] int32 of one block."""
        return torch._int_mm(operand, self.blocks[number])


def ranges(count, size):
    """[(first, end)] of blocks of at most `size` of 0 … count - 1."""
    return [(first, min(first + size, count)) for first in range(0, count, size)]
