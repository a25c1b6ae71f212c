"""Causal attention inside each text of a packed row, for any transformers model with pluggable attention.

All linear layers run on the T real tokens of the row; only attention needs to know where texts end. Here
it gathers queries, keys and values into a few length buckets, padded on the right, where causal
attention needs no mask: a real token sees only earlier, hence real, tokens of its own text. On a GPU in
half precision torch's variable-length kernel does the same without the gathering. No T x T mask is ever
built, and no text can see another whatever transformers makes of position ids, masks or caches.
"""

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from pixelrec_train.model.segments import Segments

NAME = "pixelrec_packed"


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
    if segments.buckets is None:  # reads_rows could not know that this layer has another precision
        segments = Segments.plan(segments.lengths, query.device)
    sizes = [texts * longest for texts, longest in segments.buckets]
    placed = [
        Placed.apply(x, segments.slots, segments.back).to(dtype).split(sizes) for x in (query, key, value)
    ]
    outputs = []
    for n, (bucket, *of_bucket) in enumerate(zip(segments.buckets, *placed, strict=True)):
        sees = None if segments.sees is None else segments.sees[n]
        q, k, v = (x.unflatten(0, bucket).transpose(1, 2) for x in of_bucket)  # [texts, heads, longest, d]
        out = F.scaled_dot_product_attention(
            q, k, v, sees, dropout, sees is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    outputs = torch.cat(outputs).to(query.dtype)  # [S, H, d]
    return TakenBack.apply(outputs, segments.back).unsqueeze(0), None


class Placed(torch.autograd.Function):
    """[T, ...] of the row -> [S, ...] of the buckets' slots.

    No gradient reaches a slot without a token: nobody reads its output, and no token sees it. So the backward
    pass takes the gradients of the others, where torch's would add up all slots of a row of zeros.
    """

    @staticmethod
    def forward(ctx, x, slots, back):
        ctx.save_for_backward(back)
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class TakenBack(torch.autograd.Function):
    """[S, ...] of the buckets' slots -> [T, ...] of the row; the slots without a token get no gradient."""

    @staticmethod
    def forward(ctx, x, back):
        ctx.save_for_backward(back)
        ctx.slots = len(x)
        return x.index_select(0, back)

    @staticmethod
    def backward(ctx, grad):
        of_slots = grad.new_zeros(ctx.slots, *grad.shape[1:])
        return of_slots.index_copy_(0, ctx.saved_tensors[0], grad), None


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
