"""Causal attention inside each text of a packed row, for any transformers model with pluggable attention.

All linear layers run on the T real tokens of the row; only attention needs to know where texts end. Here
it gathers queries, keys and values into a few length buckets, padded on the right, where causal
attention needs no mask: a real token sees only earlier, hence real, tokens of its own text. On a GPU in
half precision torch's variable-length kernel does the same without the gathering. No T x T mask is ever
built, and no text can see another whatever transformers makes of position ids, masks or caches.

A text may fork: behind its trunk stand branches, each of which sees the trunk and itself. So answers to one
question are read with the question once.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from pixelrec_train.distributed import sent

NAME = "pixelrec_packed"
MAX_BUCKETS = 4


@dataclass(frozen=True)
class Segments:
    """Where the texts of one packed row lie, on the device that computes."""

    position_ids: Tensor  # [T] 0, 1, 2, … inside each text
    last: Tensor  # [I] position of each text's last token
    boundaries: Tensor  # [I + 1] int32, for the variable-length kernel
    lengths: Tensor  # [I] on the CPU
    longest: int
    # Per bucket: [texts, longest] positions in the row; [real] slots of it. None where the kernel reads the
    # row as it is.
    buckets: list[tuple[Tensor, Tensor]] | None
    back: Tensor | None  # [T] place in the buckets' outputs of every position of the row
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
        if in_buckets or branch is not None:
            parts |= bucketed(lengths, starts, branch)
        parts = sent_as_one(parts, device)
        numbers = range(sum(name.startswith("rows") for name in parts))
        return Segments(
            position_ids=parts["position"],
            last=parts["last"],
            boundaries=parts["boundaries"].int(),
            lengths=on_host,
            longest=int(lengths.max()),
            buckets=[(parts[f"rows{n}"], parts[f"real{n}"]) for n in numbers] or None,
            back=parts.get("back"),
            sees=None if branch is None else [seen(parts[f"branch{n}"]) for n in numbers],
        )


def bucketed(lengths, starts, branch):
    """{name: array}: of each bucket rows, real slots and the branches of its rows; and the way back."""
    parts, packed, by_length = {}, [], np.argsort(lengths, kind="stable")
    for n, texts in enumerate(np.array_split(by_length, min(MAX_BUCKETS, len(lengths)))):
        column = np.arange(lengths[texts].max())
        real = column < lengths[texts][:, None]
        rows = starts[texts][:, None] + np.where(real, column, 0)
        parts |= {f"rows{n}": rows, f"real{n}": np.flatnonzero(real)}
        packed.append(rows[real])
        if branch is not None:
            parts[f"branch{n}"] = np.where(real, branch[rows], 0)
    packed = np.concatenate(packed)
    parts["back"] = np.empty_like(packed)
    parts["back"][packed] = np.arange(len(packed))
    return parts


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


def packed_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, *, segments, **kwargs
):
    """transformers' attention interface: query [1, H, T, d], key and value [1, H_kv, T, d] -> [1, T, H, d].

    Raises:
        NotImplementedError: the model asks for something other than plain causal attention.
    """
    refuse_other_kinds(kwargs, segments)
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, heads, d]
    if fits_variable_length_kernel(query, query.shape[-1]) and not dropout and segments.sees is None:
        return variable_length(query, key, value, scaling, segments).unsqueeze(0), None
    # On a CPU torch's kernel is up to three times faster in fp32 than in bf16, backward pass included.
    slow = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    dtype = torch.float32 if slow else query.dtype
    outputs = []
    if segments.buckets is None:  # reads_rows could not know that this layer has another precision
        segments = Segments.plan(segments.lengths, query.device)
    for n, (rows, real) in enumerate(segments.buckets):
        sees = None if segments.sees is None else segments.sees[n]
        q, k, v = (x[rows].transpose(1, 2).to(dtype) for x in (query, key, value))  # [n, heads, longest, d]
        out = F.scaled_dot_product_attention(
            q, k, v, sees, dropout, sees is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1)[real].to(query.dtype))
    return torch.cat(outputs)[segments.back].unsqueeze(0), None


def reads_rows(backbone, embeddings):
    """Whether its attention will read the packed row of these embeddings as it is, by variable_length."""
    config = backbone.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dropout = backbone.training and getattr(config, "attention_dropout", 0)
    return fits_variable_length_kernel(embeddings, head_size) and not dropout


def fits_variable_length_kernel(x, head_size):
    """Its flash-attention kernel wants a GPU from 2020 on, half precision and ordinary head sizes."""
    if not x.is_cuda or x.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(x.device) >= (8, 0) and head_size % 8 == 0 and head_size <= 256


def variable_length(query, key, value, scaling, segments):
    """The same on a GPU: [T, heads, d] each -> [T, H, d]."""
    from torch.nn.attention.varlen import varlen_attn

    ends, longest = segments.boundaries, segments.longest
    return varlen_attn(
        query.contiguous(), key.contiguous(), value.contiguous(), ends, ends, longest, longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def refuse_other_kinds(kwargs, segments):
    window = kwargs.get("sliding_window")
    if window is not None and window < segments.longest:
        raise NotImplementedError(
            f"its attention slides over {window} tokens, texts are up to {segments.longest}"
        )
    for name in ("softcap", "s_aux", "head_mask"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"its attention uses {name}")


# No mask function is registered under the name: transformers then makes no mask, and asks the GPU nothing.
AttentionInterface.register(NAME, packed_attention)
