"""Exact beam search under the trie of the catalogue: a prompt is read once per user, beams share its cache.

A beam is not a row of its own: the K beams of a user stand side by side in the user's row, each seeing the
prompt and the tokens on its own path. So nothing is copied when beams are chosen, and the cache never moves.

Shapes: B users, T prompt tokens, K beams, H hidden width, L levels, V_l codes of a level, F largest fan-out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id.codes import ABSENT
from pixelrec_train.semantic_id.trie import Trie

NORMALISED_OVER = ("full", "level")
ROWS_PER_BLOCK = 8192


class Decoder(NamedTuple):
    """What the search asks of a causal language model. Each of the four is called at most L times a search,
    in the same order on every rank, and so may gather partitioned weights (ZeRO-3).
    """

    embed: Callable[[Tensor], Tensor]  # [...] token ids -> [..., H]
    # A headless Hugging Face decoder, or what takes and gives the same: backbone(inputs_embeds=[B, S, H],
    # attention_mask=[B, 1, S, past + S] added to the scores, position_ids=[B, S], past_key_values=a
    # DynamicCache, to which it appends, use_cache=True) -> .last_hidden_state [B, S, H].
    backbone: Callable
    head: Callable[[Tensor, Tensor], Tensor]  # [..., H], [n] token ids -> [..., n] their logits
    log_norm: Callable[[Tensor], Tensor]  # [..., H] -> [...] log of the summed exp of all logits, fp32
    window: int | None = None  # tokens a position sees, its own among them; None = all before it

    @staticmethod
    def of(model) -> "Decoder":
        """The decoder of a plain AutoModelForCausalLM, whose weights are whole.

        Raises:
            InputError: its logits are not its head's, or it attends in a way that takes no mask per beam.
        """
        config, head = model.config, model.get_output_embeddings()
        attention = config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise InputError(f"constrained decoding needs attention 'sdpa' or 'eager', got {attention!r}.")
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
            if getattr(config, name, None) not in (None, 1):
                raise InputError(f"constrained decoding does not know {name} of {type(model).__name__}.")

        def logits(hidden, rows):
            bias = None if head.bias is None else head.bias[rows]
            return F.linear(hidden, head.weight[rows], bias)

        def log_norm(hidden):
            # In blocks: the logits of a whole vocabulary of 176k for all beams would not fit a cache.
            blocks = zip(
                head.weight.split(ROWS_PER_BLOCK),
                [None] * len(head.weight) if head.bias is None else head.bias.split(ROWS_PER_BLOCK),
                strict=False,
            )
            parts = [F.linear(hidden, *block).float().logsumexp(-1) for block in blocks]
            return torch.stack(parts).logsumexp(0)

        window = getattr(config, "sliding_window", None) if is_windowed(config) else None
        return Decoder(model.get_input_embeddings(), model.base_model, logits, log_norm, window)


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
    check(decoder, trie, rows, token_ids, beams, normalised_over)
    real = attention_mask.bool()
    place = torch.arange(real.shape[1], device=real.device)
    position = (real.cumsum(1) - 1).clamp(min=0)  # [B, T]
    # A padded position sees itself, as a row of a softmax must see something.
    sees = (place <= place[:, None]) & real[:, None] | (place == place[:, None])  # [B, T, T]
    cache = DynamicCache()
    hidden = forward(decoder, decoder.embed(token_ids), sees, position, cache)
    last = (place * real).argmax(1)
    hidden = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))  # [B, 1, H]

    score = hidden.new_zeros(hidden.shape[:2], dtype=torch.float32)  # [B, K] of the beams; one so far
    node = torch.zeros_like(score, dtype=torch.long)
    path = real.new_empty(*score.shape, 0)  # [B, K, tokens behind the prompt] those on the beam's own path
    behind = position.gather(1, last[:, None]) + 1  # [B, 1] where the first code stands
    for level, tokens in enumerate(rows):
        logits = decoder.head(hidden, tokens)  # [B, K, V_l]
        norm = decoder.log_norm(hidden) if normalised_over == "full" else logits.float().logsumexp(-1)
        parent, code, node, score = extend(trie, level, node, score, logits, norm, beams)
        if level + 1 < trie.levels:
            token = tokens[code.clamp(min=0)]  # what is read behind a complete id does not matter
            path = path.gather(1, parent[..., None].expand(-1, -1, path.shape[2]))
            itself = torch.eye(token.shape[1], dtype=torch.bool, device=path.device)
            path = torch.cat([path, itself.expand(len(path), -1, -1)], dim=2)
            sees = torch.cat([real[:, None].expand(-1, token.shape[1], -1), path], dim=2)
            hidden = forward(decoder, decoder.embed(token), sees, (behind + level).expand_as(token), cache)
    return in_order(node, score, normalised_over)


def forward(decoder, embeddings, sees, position, cache):
    """[B, S, H] hidden states of new tokens, which the cache keeps; sees: [B, S, past + S] bool."""
    mask = torch.zeros_like(sees, dtype=embeddings.dtype)
    mask = mask.masked_fill(~sees, torch.finfo(mask.dtype).min)[:, None]
    return decoder.backbone(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def extend(trie, level, node, score, logits, norm, beams):
    """The best continuations of K beams, K' = as many as are wanted and as there can be.

    Args:
        node, score: [B, K]; a beam of score -inf is none, and neither is what continues it.
        logits: [B, K, V_l] of the level's codes.
        norm: [B, K] what makes them log-probabilities.

    Returns:
        [B, K'] each: the beam it continues, its code, its node on the next level, its score; best first.
    """
    codes, nodes, is_child = trie.children(level, node)  # [B, K, F]
    gain = logits.gather(2, codes.clamp(min=0)).float() - norm[..., None]
    gain = gain.masked_fill(codes == ABSENT, 0.0)
    total = (score[..., None] + gain).masked_fill(~is_child, -torch.inf).flatten(1)
    score, chosen = total.topk(min(beams, total.shape[1], len(trie.codes[level])), dim=1)
    parent = chosen // trie.fanout[level]
    return parent, codes.flatten(1).gather(1, chosen), nodes.flatten(1).gather(1, chosen), score


def in_order(node, score, normalised_over):
    """Beams by score, equal ones by leaf; what is none has no leaf."""
    leaves, order = node.masked_fill(score.isneginf(), -1).sort(dim=1)
    scores, by_score = score.gather(1, order).sort(dim=1, descending=True, stable=True)
    return Beams(leaves.gather(1, by_score), scores, normalised_over)


def check(decoder, trie, rows, token_ids, beams, normalised_over):
    if len(rows) != trie.levels:
        raise ValueError(f"rows of {len(rows)} levels, but the trie has {trie.levels}")
    if normalised_over not in NORMALISED_OVER:
        raise ValueError(f"normalised_over must be one of {NORMALISED_OVER}, got {normalised_over!r}")
    if beams < 1:
        raise ValueError(f"a search needs at least one beam, got {beams}")
    longest = token_ids.shape[1] + trie.levels - 1
    if decoder.window and longest > decoder.window:
        raise ValueError(f"prompts and ids take {longest} tokens, but the model attends to {decoder.window}")


def is_windowed(config):
    """Whether a layer sees the newest positions only."""
    kinds = getattr(config, "layer_types", None)
    return any(kind != "full_attention" for kind in kinds) if kinds else hasattr(config, "sliding_window")
