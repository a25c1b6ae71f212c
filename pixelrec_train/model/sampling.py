"""Semantic ids drawn from a model under the trie of the catalogue, several for each prompt.

Shapes: B prompts, T prompt tokens, K draws, L levels, V_l codes of a level, F largest fan-out of a level.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelrec_train.model.reading import Decoder, read
from pixelrec_train.model.trie_walk import check, continuations, walk
from pixelrec_train.semantic_id.trie import Trie


class Draws(NamedTuple):
    """K semantic ids for each prompt: of `sample` independent of each other, so that the same one may come
    twice; of `sample_distinct` all different, or as many as there are."""

    leaves: Tensor  # [B, K] of the trie
    # [B, K, L] of each code in nats, as the model has it: at temperature 1 and nothing left out; 0 where an
    # id has no further code.
    log_probabilities: Tensor
    normalised_over: str  # "full": every code's probability is over the vocabulary; "level": its level's


@torch.no_grad()
def sample(
    decoder: Decoder,
    trie: Trie,
    rows: Sequence[Tensor],
    token_ids: Tensor,
    attention_mask: Tensor,
    draws: int,
    normalised_over: str = "full",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    noise: Callable | None = None,
) -> Draws:
    """Draw `draws` ids after each prompt, code by code, each among those that lead on in the trie.

    As in beam_search a prompt is read once, nothing waits for a GPU, and the end of an id that is the
    beginning of others weighs as much as a code that is certain.

    Args:
        trie, rows, token_ids, attention_mask: see beam_search.
        temperature: what logits are divided by, above 0; near 0 the draws are the search with one beam.
        top_k: likeliest codes that may be drawn of those that lead on; None = all.
        top_p: share of the probability that the likeliest of those hold who may be drawn, in (0, 1].
        noise: shape -> [B, *shape] numbers drawn from [0, 1), fp32, on the model's device, such as Noise;
            None = torch's own.

    Raises:
        ValueError: as beam_search, or a setting is out of its range.
    """
    check(decoder, trie, rows, token_ids.shape[1], draws, normalised_over)
    if temperature <= 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ValueError(f"no draws with temperature {temperature}, top_k {top_k} and top_p {top_p}")
    drawn, noise = [], noise or own_noise(token_ids)  # [B, K] of each level

    def choose(level, node, hidden):
        codes, nodes, gain, is_child = continuations(
            decoder, trie, rows, level, node, hidden, normalised_over
        )
        kept = gain.masked_fill(~is_child, -torch.inf)
        edge = draw(likeliest(kept / temperature, top_k, top_p), draws, noise)[..., None]  # [B, K, 1]
        parent = torch.arange(draws, device=node.device).clamp(max=node.shape[1] - 1).expand(len(node), -1)
        gain, code, node = (x.expand(-1, draws, -1).gather(2, edge)[..., 0] for x in (gain, codes, nodes))
        drawn.append(gain)
        return parent, code, node

    leaves = walk(decoder, rows, read(decoder, token_ids, attention_mask), choose)
    return Draws(leaves, torch.stack(drawn, -1), normalised_over)


@torch.no_grad()
def sample_distinct(
    decoder: Decoder,
    trie: Trie,
    rows: Sequence[Tensor],
    token_ids: Tensor,
    attention_mask: Tensor,
    draws: int,
    normalised_over: str = "full",
    temperature: float = 1.0,
    noise: Callable | None = None,
) -> Draws:
    """Draw ids as `sample` does, but none a second time: as if one were drawn after the other, each with its
    share of what is left. They stand in the order in which they were drawn.

    Args and errors: as of sample. Where the catalogue has fewer ids than `draws`, all of them are drawn.

    Source: Kool, van Hoof and Welling (arXiv:1903.06059): a beam search whose scores are disturbed by Gumbel
    noise, a node's being the largest of its children's.
    """
    check(decoder, trie, rows, token_ids.shape[1], draws, normalised_over)
    if temperature <= 0:
        raise ValueError(f"no draws with temperature {temperature}")
    noise = noise or own_noise(token_ids)
    share = disturbed = torch.zeros(len(token_ids), 1, device=token_ids.device)  # [B, K], log and with noise
    drawn = torch.zeros(len(token_ids), 1, 0, device=token_ids.device)  # [B, K, levels so far]

    def choose(level, node, hidden):
        nonlocal share, disturbed, drawn
        codes, nodes, gain, is_child = continuations(
            decoder, trie, rows, level, node, hidden, normalised_over
        )
        kept = gain.masked_fill(~is_child, -torch.inf)
        ours = share[..., None] + (kept / temperature).log_softmax(-1)  # [B, K, F] of whole paths
        waiting = -torch.log(noise(ours.shape[1:]).clamp_(min=torch.finfo(torch.float32).tiny))
        free = ours - waiting.clamp_(min=torch.finfo(torch.float32).tiny).log()
        free = within(free, disturbed).masked_fill(~is_child, -torch.inf)
        count = min(draws, free[0].numel(), len(trie.codes[level]))
        disturbed, chosen = free.flatten(1).topk(count, dim=1)
        parent = chosen // codes.shape[2]
        gain, code, node, share = (x.flatten(1).gather(1, chosen) for x in (gain, codes, nodes, ours))
        before = drawn.gather(1, parent[..., None].expand(-1, -1, drawn.shape[2]))
        drawn = torch.cat([before, gain[..., None]], dim=2)
        return parent, code, node

    leaves = walk(decoder, rows, read(decoder, token_ids, attention_mask), choose)
    return Draws(leaves, drawn, normalised_over)


def within(free, largest):
    """[B, K, F] Gumbel-disturbed scores of children -> the same, given that the largest of each F is
    `largest`, [B, K].

    Source: Kool et al., appendix B.3, in the form that does not overflow.
    """
    most = free.amax(-1, keepdim=True)
    # log of (1 - exp(free - most)), which is -inf at the largest itself.
    gap = torch.log(-torch.expm1(free - most))
    shift = largest[..., None] - free + gap
    return largest[..., None] - shift.clamp(min=0) - torch.log1p(torch.exp(-shift.abs()))


class Noise:
    """noise(shape) -> [B, *shape] numbers in [0, 1), fp32, of 24 bits: row b is that of (seed, keys[b]) and
    of what was asked before, whoever stands beside it."""

    def __init__(self, seed, keys, device):
        """keys: B whole numbers in [0, 2**64)."""
        pairs = (np.array([seed, key], np.uint64) for key in keys)
        self.rows, self.device = [np.random.Generator(np.random.Philox(key=p)) for p in pairs], device

    def __call__(self, shape):
        drawn = np.stack([row.random(tuple(shape), np.float32) for row in self.rows])
        return torch.from_numpy(drawn).to(self.device)


def own_noise(token_ids):
    return lambda shape: torch.rand(len(token_ids), *shape, device=token_ids.device)


def likeliest(scores, top_k, top_p):
    """[..., F] scores, -inf where it is none of the top_k, or of those that hold top_p of the probability."""
    if top_k is None and top_p == 1:
        return scores
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    share = ordered.softmax(-1)
    late = torch.zeros_like(share, dtype=torch.bool)
    if top_p < 1:
        late = share.cumsum(-1) - share >= top_p  # those before it hold as much already
    if top_k is not None:
        late[..., top_k:] = True
    return scores.masked_fill(late.gather(-1, order.argsort(-1)), -torch.inf)


def draw(scores, draws, noise):
    """[B, K or 1, F] scores -> [B, draws] places, each drawn with the softmax of its row."""
    # Who is first of those that come at rates which are their probabilities; a time of 0 would be NaN.
    waiting = -torch.log1p(-noise((draws, scores.shape[2])))
    return (scores.softmax(-1) / waiting.clamp_(min=torch.finfo(torch.float32).tiny)).argmax(-1)
