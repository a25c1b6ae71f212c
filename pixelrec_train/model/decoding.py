"""Exact beam search under the trie of the catalogue.

Shapes: B users, T prompt tokens, K beams, H hidden width, L levels, V_l codes of a level, F largest fan-out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelrec_train.model.reading import Decoder, Prefix, read
from pixelrec_train.model.trie_walk import check, continuations, walk
from pixelrec_train.semantic_id.trie import Trie


class Beams(NamedTuple):
    """The best semantic ids of each user, best first; K = those asked for, or all the trie has.

    A node always has a child, so beams never run out on their way.
    """

    leaves: Tensor  # [B, K] leaves of the trie; -1 where the model calls an id impossible (score -inf)
    scores: Tensor  # [B, K] fp32 log-probabilities of the ids, in nats
    normalised_over: str  # "full": every token's probability is over the vocabulary; "level": its level's


@torch.no_grad()
def beam_search(
    decoder: Decoder,
    trie: Trie,
    rows: Sequence[Tensor],
    token_ids: Tensor,
    attention_mask: Tensor,
    beams: int,
    normalised_over: str = "full",
) -> Beams:
    """The `beams` most probable semantic ids after each prompt, found level by level, none outside the trie.

    There are 1 + (L - 1) forward passes, whatever the prompts are, and no step for an end of text. Nothing in
    between waits for a GPU. With as many beams as the catalogue has ids the ranking is exhaustive. An id that
    is shorter than L levels is complete when its last code is: later levels leave its score as it is, and it
    competes with longer ids by it (so an id never ranks behind one that it is the beginning of).

    Args:
        trie: on the model's device.
        rows: L of [V_l] token ids of the codes 0, 1, … of a level, on the model's device.
        token_ids: [B, T] prompts, up to and with the token in front of the first code.
        attention_mask: [B, T] 1 where a prompt is real; padding may stand on either side.

    Returns:
        Beams; equal scores are ordered by leaf, that is by their codes. (Which of equal ones a level keeps at
        its cut is left to torch.topk.)

    Raises:
        ValueError: rows and trie differ in levels; normalised_over is neither; the prompts are longer than
            what the model attends to.
    """
    check(decoder, trie, rows, token_ids.shape[1], beams, normalised_over)
    return search_from(decoder, trie, rows, read(decoder, token_ids, attention_mask), beams, normalised_over)


@torch.no_grad()
def search_from(
    decoder: Decoder,
    trie: Trie,
    rows: Sequence[Tensor],
    prefix: Prefix,
    beams: int,
    normalised_over: str = "full",
) -> Beams:
    """beam_search behind what has been read already: of a thought, say. It uses the prefix up.

    Raises:
        ValueError: as beam_search.
    """
    check(decoder, trie, rows, prefix.real.shape[1], beams, normalised_over)
    # [B, K] of the beams; one so far. A beam of score -inf is none, and neither is what continues it.
    score = torch.zeros(len(prefix.real), 1, device=prefix.real.device)

    def log_norm(level, hidden):
        # The first code's is one for all beams of a user and chooses none of them: it comes with the second
        # code's, in one product with the vocabulary.
        nonlocal score
        if level == 0 and trie.levels > 1:
            return score
        if level != 1:
            return decoder.log_norm(hidden)
        norms = decoder.log_norm(torch.cat([prefix.hidden, hidden], dim=1))
        score = score - norms[:, :1]
        return norms[:, 1:]

    def choose(level, node, hidden):
        nonlocal score
        codes, nodes, gain, is_child = continuations(
            decoder, trie, rows, level, node, hidden, normalised_over, log_norm
        )
        total = (score[..., None] + gain).masked_fill(~is_child, -torch.inf).flatten(1)
        score, chosen = total.topk(min(beams, total.shape[1], len(trie.codes[level])), dim=1)
        parent = chosen // trie.fanout[level]
        return parent, codes.flatten(1).gather(1, chosen), nodes.flatten(1).gather(1, chosen)

    return in_order(walk(decoder, rows, prefix, choose), score, normalised_over)


def in_order(node, score, normalised_over):
    """Beams by score, equal ones by leaf; what is none has no leaf."""
    leaves, order = node.masked_fill(score.isneginf(), -1).sort(dim=1)
    scores, by_score = score.gather(1, order).sort(dim=1, descending=True, stable=True)
    return Beams(leaves.gather(1, by_score), scores, normalised_over)
