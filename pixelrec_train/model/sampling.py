"""Semantic ids drawn from a model under the trie of the catalogue, several for each prompt.

Shapes: B prompts, T prompt tokens, K draws, L levels, V_l codes of a level, F largest fan-out of a level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelrec_train.model.reading import Decoder, read
from pixelrec_train.model.trie_walk import check, walk
from pixelrec_train.semantic_id.codes import ABSENT
from pixelrec_train.semantic_id.trie import Trie


class Draws(NamedTuple):
    """K semantic ids for each prompt, independent of each other: the same one may come twice."""

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
    generator: torch.Generator | None = None,
) -> Draws:
    """Draw `draws` ids after each prompt, code by code, each among those that lead on in the trie.

    As in beam_search a prompt is read once, nothing waits for a GPU, and the end of an id that is the
    beginning of others weighs as much as a code that is certain.

    Args:
        trie, rows, token_ids, attention_mask: see beam_search.
        temperature: what logits are divided by, above 0; near 0 the draws are the search with one beam.
        top_k: likeliest codes that may be drawn of those that lead on; None = all.
        top_p: share of the probability that the likeliest of those hold who may be drawn, in (0, 1].
        generator: on the model's device; None = torch's own.

    Raises:
        ValueError: as beam_search, or a setting is out of its range.
    """
    check(decoder, trie, rows, token_ids.shape[1], draws, normalised_over)
    if temperature <= 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ValueError(f"no draws with temperature {temperature}, top_k {top_k} and top_p {top_p}")
    drawn = []  # [B, K] of each level

    def choose(level, node, hidden, logits):
        norm = decoder.log_norm(hidden) if normalised_over == "full" else logits.float().logsumexp(-1)
        codes, nodes, is_child = trie.children(level, node)  # [B, 1 or K, F]
        gain = logits.gather(2, codes.clamp(min=0)).float() - norm[..., None]
        gain = gain.masked_fill(codes == ABSENT, 0.0)
        kept = (gain / temperature).masked_fill(~is_child, -torch.inf)
        edge = draw(likeliest(kept, top_k, top_p), draws, generator)[..., None]  # [B, K, 1]
        parent = torch.arange(draws, device=node.device).clamp(max=node.shape[1] - 1).expand(len(node), -1)
        gain, code, node = (x.expand(-1, draws, -1).gather(2, edge)[..., 0] for x in (gain, codes, nodes))
        drawn.append(gain)
        return parent, code, node

    leaves = walk(decoder, rows, read(decoder, token_ids, attention_mask), choose)
    return Draws(leaves, torch.stack(drawn, -1), normalised_over)


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


def draw(scores, draws, generator):
    """[B, K or 1, F] scores -> [B, draws] places, each drawn with the softmax of its row."""
    waiting = scores.new_empty(len(scores), draws, scores.shape[2]).exponential_(generator=generator)
    # Who is first of those that come at rates which are their probabilities; a time of 0 would be NaN.
    return (scores.softmax(-1) / waiting.clamp_(min=torch.finfo(torch.float32).tiny)).argmax(-1)
