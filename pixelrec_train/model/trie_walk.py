"""Down the trie of the catalogue with a causal LM: a prompt is read once per user, its paths share its cache.

A path is not a row of its own: the K paths of a user stand side by side in the user's row, each seeing the
prompt and the tokens of its own. So nothing is copied when paths are chosen, and the cache never moves.

Shapes: B users, T prompt tokens, K paths, H hidden width, L levels, V_l codes of a level.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from pixelrec_train.errors import InputError

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
    sliding_window: int | None = None  # tokens a position sees, its own among them; None = all before it

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


def walk(decoder, rows, token_ids, attention_mask, choose):
    """Read each prompt once, then go down the trie level by level; what is chosen shares the prompt's cache.

    Args:
        choose: the level, [B, K] nodes there (at first the root alone), [B, K, H] hidden states in front of
            their next code, [B, K, V_l] logits of it -> [B, K'] each: which of the K goes on, its code, its
            node on the next level.

    Returns:
        [B, K] nodes behind the last level: leaves.
    """
    real = attention_mask.bool()
    place = torch.arange(real.shape[1], device=real.device)
    position = (real.cumsum(1) - 1).clamp(min=0)  # [B, T]
    # A padded position sees itself, as a row of a softmax must see something.
    sees = (place <= place[:, None]) & real[:, None] | (place == place[:, None])  # [B, T, T]
    cache = DynamicCache()
    hidden = forward(decoder, decoder.embed(token_ids), sees, position, cache)
    last = (place * real).argmax(1)
    hidden = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))  # [B, 1, H]

    node = torch.zeros(len(real), 1, dtype=torch.long, device=real.device)
    path = real.new_empty(*node.shape, 0)  # [B, K, tokens behind the prompt] those of its own
    behind = position.gather(1, last[:, None]) + 1  # [B, 1] where the first code stands
    for level, tokens in enumerate(rows):
        parent, code, node = choose(level, node, hidden, decoder.head(hidden, tokens))
        if level + 1 < len(rows):
            token = tokens[code.clamp(min=0)]  # what is read behind a complete id does not matter
            path = path.gather(1, parent[..., None].expand(-1, -1, path.shape[2]))
            itself = torch.eye(token.shape[1], dtype=torch.bool, device=path.device)
            path = torch.cat([path, itself.expand(len(path), -1, -1)], dim=2)
            sees = torch.cat([real[:, None].expand(-1, token.shape[1], -1), path], dim=2)
            hidden = forward(decoder, decoder.embed(token), sees, (behind + level).expand_as(token), cache)
    return node


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


def check(decoder, trie, rows, token_ids, paths, normalised_over):
    if len(rows) != trie.levels:
        raise ValueError(f"rows of {len(rows)} levels, but the trie has {trie.levels}")
    if normalised_over not in NORMALISED_OVER:
        raise ValueError(f"normalised_over must be one of {NORMALISED_OVER}, got {normalised_over!r}")
    if paths < 1:
        raise ValueError(f"at least one beam or draw is needed, got {paths}")
    longest = token_ids.shape[1] + trie.levels - 1
    if decoder.sliding_window and longest > decoder.sliding_window:
        raise ValueError(
            f"prompts and ids take {longest} tokens, but the model attends to {decoder.sliding_window}"
        )


def is_windowed(settings):
    """Whether a layer sees the newest positions only, by a model's config.json."""
    kinds = getattr(settings, "layer_types", None)
    return any(kind != "full_attention" for kind in kinds) if kinds else hasattr(settings, "sliding_window")
