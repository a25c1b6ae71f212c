"""Thoughts: text that a model says freely, for many users at once, in front of what is asked for.

A thought is decided by its user's prompt and random numbers alone, not by who shares the batch. Its end is
where the model says so, or the limit; rows that have ended wait for the others without reading.

Shapes: B users, S tokens of the longest thought, H hidden width, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pixelrec_train import distributed
from pixelrec_train.model.reading import Decoder, Prefix, check_window, read
from pixelrec_train.model.sampling import Noise

LOOK_EVERY = 16  # tokens, behind which it is asked whether anybody still thinks: a wait for the GPU


class Sampling(NamedTuple):
    """How freely a token is drawn."""

    temperature: float = 1.0  # what logits are divided by; 0 = always the likeliest
    top_k: int | None = None  # likeliest tokens that may be drawn; None = all
    top_p: float = 1.0  # of those, the likeliest that hold this share of their probability, in (0, 1]


class Thoughts(NamedTuple):
    token_ids: Tensor  # [B, S], the token that ends a thought included
    real: Tensor  # [B, S] bool, False behind the end of a thought
    ended: Tensor  # [B] bool, whether the model ended it; False at the limit, or where it stopped otherwise


@torch.no_grad()
def think(
    decoder: Decoder,
    prefix: Prefix,
    uniform: Tensor,
    end_id: int,
    stop_ids: Tensor,
    how: Sampling,
) -> tuple[Prefix, Thoughts]:
    """Draw a thought behind every prompt; all ranks call it, and make equally many forward passes.

    Args:
        prefix: the prompts, as read; it is used up.
        uniform: [B, S_max] numbers in [0, 1), fp32, of `uniforms`: what decides each draw. At most S_max
            tokens are drawn.
        end_id: the token that ends a thought; it is read like the others.
        stop_ids: tokens that end a whole text: a thought stops there unfinished, and they are not read.

    Returns:
        What has been read with the thoughts, and the thoughts.

    Raises:
        ValueError: a setting is out of its range, or the model attends to fewer tokens.
    """
    if how.temperature < 0 or not 0 < how.top_p <= 1 or (how.top_k is not None and how.top_k < 1):
        raise ValueError(f"no thoughts with {how}")
    check_window(decoder, prefix.real.shape[1] + uniform.shape[1])
    thinking = prefix.real.any(1)  # [B]
    ended, tokens, reals = torch.zeros_like(thinking), [], []
    for step in range(uniform.shape[1]):
        if step % LOOK_EVERY == 0 and not anybody(thinking):
            break
        token = draw(decoder.logits(prefix.hidden[:, 0]), uniform[:, step], how)
        thinking = thinking & ~torch.isin(token, stop_ids)
        prefix = read(decoder, token[:, None], thinking[:, None], prefix)
        tokens.append(token)
        reals.append(thinking)
        ended = ended | thinking & (token == end_id)
        thinking = thinking & ~ended
    return prefix, Thoughts(torch.stack(tokens, 1), torch.stack(reals, 1), ended)


def draw(scores: Tensor, uniform: Tensor, how: Sampling) -> Tensor:
    """[B, V] scores, [B] numbers in [0, 1) -> [B] tokens: where the shares, likeliest first, pass the number.

    Source: the order of cuts of transformers and vLLM: temperature, top_k, top_p of what top_k left.
    """
    if how.temperature == 0:
        return scores.argmax(-1)
    kept = min(how.top_k or scores.shape[1], scores.shape[1])
    ordered, order = (scores / how.temperature).topk(kept, dim=-1)
    share = ordered.softmax(-1)
    share = share.masked_fill(share.cumsum(-1) - share >= how.top_p, 0.0)  # those before hold as much already
    ends = share.double().cumsum(-1)
    # A number of 24 bits times the sum stays below the sum in fp64: what has no share is never drawn.
    place = (ends <= uniform.double()[:, None] * ends[:, -1:]).sum(-1)
    return order.gather(1, place.clamp(max=kept - 1)[:, None])[:, 0]


def uniforms(seed, keys, count) -> Tensor:
    """[B, count] fp32 in [0, 1), of 24 bits; row b is that of (seed, keys[b]), whoever stands beside it.

    Args:
        keys: B whole numbers in [0, 2**64).
    """
    return Noise(seed, keys, "cpu")((count,))


def anybody(thinking):
    """Whether a user of any rank still thinks."""
    return float(distributed.mean_tensor(thinking.any().float())) > 0
