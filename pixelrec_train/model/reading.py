"""Reading step by step with a causal LM: prompts of any lengths side by side, and what comes behind them.

Rows of a batch differ in length, so places of the cache are empty in some of them. Each row sees its own
tokens alone, at the positions that it would have by itself: who shares a batch changes no result.

Shapes: B users, S tokens read at once, P places of the cache, H hidden width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from pixelrec_train.errors import InputError
from pixelrec_train.model.last_layer import row_ends_alone
from pixelrec_train.model.normaliser import Packed, log_norm, score_some


class Decoder(NamedTuple):
    """What the search asks of a causal language model. Each is called equally often and in the same order on
    every rank that does the same work, and so may gather partitioned weights (ZeRO-3).
    """

    embed: Callable[[Tensor], Tensor]  # [...] token ids -> [..., H]
    # A headless Hugging Face decoder, or what takes and gives the same: backbone(inputs_embeds=[B, S, H],
    # attention_mask=[B, 1, S, past + S] added to the scores, position_ids=[B, S], past_key_values=a
    # DynamicCache, to which it appends, use_cache=True) -> .last_hidden_state [B, S, H].
    backbone: Callable
    # [..., H], [n] token ids -> [..., n] their logits; or [..., F] ids, each state's own -> [..., F]
    head: Callable[[Tensor, Tensor], Tensor]
    log_norm: Callable[[Tensor], Tensor]  # [..., H] -> [...] log of the summed exp of all logits, fp32
    logits: Callable[[Tensor], Tensor]  # [B, H] -> [B, V] fp32 of every token; -inf where a row is no token
    sliding_window: int | None = None  # tokens a position sees, its own among them; None = all before it

    @staticmethod
    def of(model) -> "Decoder":
        """The decoder of a plain AutoModelForCausalLM, whose weights are whole and stand still.

        Raises:
            InputError: its logits are not its head's, or it attends in a way that takes no mask per beam.
        """
        config, head, packed = model.config, model.get_output_embeddings(), Packed()
        attention = config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise InputError(f"constrained decoding needs attention 'sdpa' or 'eager', got {attention!r}.")
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
            if getattr(config, name, None) not in (None, 1):
                raise InputError(f"constrained decoding does not know {name} of {type(model).__name__}.")

        return Decoder(
            model.get_input_embeddings(), model.base_model,
            lambda hidden, ids: score_some(hidden, ids, head.weight, head.bias),
            lambda hidden: log_norm(hidden, head.weight, bias=head.bias, packed=packed),
            lambda hidden: head(hidden).float(), window_of(config),
        )  # fmt: skip


class Prefix(NamedTuple):
    """What has been read so far. Whoever reads on or searches makes its cache longer: it can be used once."""

    cache: DynamicCache  # of P places
    real: Tensor  # [B, P] bool, False where a place holds no token of this user
    length: Tensor  # [B, 1] tokens read, and so the position of the next
    hidden: Tensor  # [B, 1, H] final state at the newest token


def read(decoder: Decoder, token_ids: Tensor, attention_mask: Tensor, so_far: Prefix | None = None) -> Prefix:
    """Read prompts, or what follows on those read so far; one forward pass.

    Args:
        token_ids: [B, S]
        attention_mask: [B, S] 1 where a token is real; padding may stand anywhere, and be a whole row of what
            follows, whose prefix then stays as it is.
    """
    real = attention_mask.bool()
    place = torch.arange(real.shape[1], device=real.device)
    # A padded place sees itself, as a row of a softmax must see something.
    sees = (place <= place[:, None]) & real[:, None] | (place == place[:, None])  # [B, S, S]
    position = (real.cumsum(1) - 1).clamp(min=0)  # [B, S]
    cache = so_far.cache if so_far else DynamicCache()
    if so_far:
        sees = torch.cat([so_far.real[:, None].expand(-1, len(place), -1), sees], dim=2)  # [B, S, P + S]
        position = position + so_far.length
    last = (place * real).argmax(1)
    with row_ends_alone(decoder.backbone, last, len(place)):
        states = forward(decoder, decoder.embed(token_ids), sees, position, cache)
    hidden = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))
    length = real.sum(1, keepdim=True)
    if so_far:
        hidden = torch.where(real.any(1)[:, None, None], hidden, so_far.hidden)
        real, length = torch.cat([so_far.real, real], dim=1), so_far.length + length
    return Prefix(cache, real, length, hidden)


def side_by_side(texts, device):
    """b [T] token ids -> [b, T] padded on the left, and [b, T] 1 where they are real."""
    return (
        pad_sequence(part, batch_first=True, padding_side="left").to(device)
        for part in (texts, [torch.ones_like(text) for text in texts])
    )


def forward(decoder, embeddings, sees, position, cache):
    """[B, S, H] hidden states of new tokens, which the cache keeps; sees: [B, S, P + S] bool."""
    mask = torch.zeros_like(sees, dtype=embeddings.dtype)
    mask = mask.masked_fill(~sees, torch.finfo(mask.dtype).min)[:, None]
    return decoder.backbone(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def check_window(decoder, tokens):
    """Raises ValueError where a layer would not see all tokens of a row: here each sees all before it."""
    if decoder.sliding_window and tokens > decoder.sliding_window:
        raise ValueError(
            f"prompts and ids take {tokens} tokens, but the model attends to {decoder.sliding_window}"
        )


def window_of(settings):
    """Newest positions that some layer sees and no others, by a model's config.json; None = all see all."""
    return getattr(settings, "sliding_window", None) if is_windowed(settings) else None


def is_windowed(settings):
    """Whether a layer sees the newest positions only, by a model's config.json."""
    kinds = getattr(settings, "layer_types", None)
    return any(kind != "full_attention" for kind in kinds) if kinds else hasattr(settings, "sliding_window")
