"""The one door into the item LLM: many texts in, one embedding each. How they are batched stays in here.

No text ever sees another: in training and evaluation, with and without activation checkpointing, on any
architecture. tests/test_text_encoder.py holds that.
"""

import dataclasses
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelrec_train.batch import PackedTexts
from pixelrec_train.model import cpu_layers, packed_attention
from pixelrec_train.model.backbone import is_causal, no_cache
from pixelrec_train.model.last_layer import read_last_tokens_alone
from pixelrec_train.model.pooling import Pooling
from pixelrec_train.model.segments import Segments, sent_as_one

PADDED_CALLS = 4  # always as many, so that all ranks call the model equally often


class TextEncoder(nn.Module):
    """A transformer that reads texts; its [ITEM] token (or a pooling of its tokens) is the embedding.

    A causal model runs all texts as one packed row with attention per text. Others are padded on the
    right in four groups of similar length. Which of the two is decided once, by trying: `way` says it.
    """

    def __init__(self, backbone: nn.Module, item_emb_token_n: int, longest: int, encoder=None):
        """
        Args:
            longest: tokens of the longest text it will read, [ITEM] included; a sliding window may cut it.
            encoder: SentenceEncoder, how it pools without [ITEM]; None = the mean of the tokens.
        """
        super().__init__()
        self.backbone = backbone
        cpu_layers.put_in(backbone)
        width = backbone.config.hidden_size
        weight = next(backbone.parameters())
        self.item_token = nn.Parameter(torch.empty(width, dtype=weight.dtype)) if item_emb_token_n else None
        if item_emb_token_n:
            nn.init.normal_(self.item_token, std=0.02)
        self.pooling = Pooling(width, encoder, weight.dtype)
        self.packed, self.way = self.choose_way(longest)
        self.layers_of_chunks = True  # recomputed, where layers are; else chunks alone are

    @staticmethod
    def of(backbone, item_emb_token_n, max_text_length, encoder, directory) -> "TextEncoder":
        """For texts of at most max_text_length tokens, with what lies behind the transformer in a model
        directory; None = its random weights."""
        model = TextEncoder(backbone, item_emb_token_n, max_text_length + item_emb_token_n, encoder)
        if directory is not None:
            model.pooling.load(directory)
        return model

    @property
    def width(self):
        """Of an embedding."""
        return self.pooling.width

    def forward(self, texts: PackedTexts, chunks: int = 1) -> Tensor:
        """Texts -> [I, D] embeddings: the final-norm hidden state at [ITEM], or what Pooling makes of it.

        Args:
            chunks: parts with about equally many tokens, read one after the other. Of all but the last only
                the embeddings are kept, and the backward pass reads them again: memory is that of one chunk.
                Under ZeRO-3 it must be the same on every rank.
        """
        # A new tensor: under ZeRO-3 the parameter itself is gone when a chunk is read again.
        token = None if self.item_token is None else self.item_token.clone()
        if not self.layers_of_chunks:
            recompute_layers(self.backbone, chunks == 1)
        bounds = texts.bounds(chunks) if chunks > 1 else [(0, len(texts.lengths))]
        embeddings = []
        for number, (first, stop) in enumerate(bounds):
            part = texts.part(first, stop) if stop > first else texts.part(0, 1)  # a call, for the count
            last = number == len(bounds) - 1
            read = self.read if last else partial(checkpoint, self.read, use_reentrant=False)
            embeddings.append(read(part, token)[: stop - first])
        return torch.cat(embeddings)

    def read(self, texts, token):
        """PackedTexts, [D] or None -> [I, D], in one go."""
        embeds = self.backbone.get_input_embeddings()(texts.token_ids)  # [T, D]
        in_buckets = self.packed and not packed_attention.reads_rows(self.backbone, embeds)
        segments = Segments.plan(texts.lengths, embeds.device, in_buckets=in_buckets)
        if token is not None:
            placed = token.expand(len(segments.last), -1).to(embeds.dtype)
            embeds = embeds.index_copy(0, segments.last, placed)
        hidden = (
            self.run_packed(embeds, segments) if self.packed else self.run_padded(embeds, texts, segments)
        )
        if token is not None:
            return hidden[segments.last]
        return self.pooling(hidden, segments.boundaries.diff().long())

    def run_packed(self, embeds, segments):
        """[T, D] -> [T, D], one call."""
        out = self.backbone(
            inputs_embeds=embeds.unsqueeze(0),
            position_ids=segments.position_ids.unsqueeze(0),
            segments=segments,
            use_cache=False,
        )
        return out.last_hidden_state[0]

    def run_padded(self, embeds, texts, segments):
        """[T, D] -> [T, D], through PADDED_CALLS right-padded batches of similar lengths."""
        lengths = texts.lengths.numpy()
        starts = np.cumsum(lengths) - lengths
        hidden, seen = torch.zeros_like(embeds), 0
        for texts_here in padded_groups(lengths):
            column = np.arange(lengths[texts_here].max())
            real = column < lengths[texts_here][:, None]
            first_time = real & (seen + np.arange(len(texts_here)) < len(lengths))[:, None]
            seen += len(texts_here)
            rows = starts[texts_here][:, None] + np.where(real, column, 0)
            plan = {"rows": rows, "real": real, "from": np.flatnonzero(first_time), "to": rows[first_time]}
            plan = sent_as_one(plan, embeds.device)
            out = self.backbone(
                inputs_embeds=embeds[plan["rows"]], attention_mask=plan["real"], **no_cache(self.backbone)
            )
            read = out.last_hidden_state.flatten(0, 1)[plan["from"]]
            hidden = hidden.index_put((plan["to"],), read)
        return hidden

    def computed_tokens(self, texts, chunks=1):
        """Tokens its linear layers compute for these texts, padding included."""
        if self.packed:
            return texts.token_ids.numel()
        parts = [texts.lengths[a:b].numpy() for a, b in texts.bounds(chunks)]
        return sum(len(g) * p[g].max() for p in parts if len(p) for g in padded_groups(p))

    @torch.no_grad()
    def choose_way(self, longest):
        """(True, why) when a packed row gives this model's own padded results, else (False, why)."""
        name = type(self.backbone).__name__
        if not getattr(self.backbone, "_supports_attention_backend", False):
            return False, f"padded by length ({name}: it has no pluggable attention)"
        if not is_causal(self.backbone):
            return False, f"padded by length ({name}: its tokens see later ones)"
        before = self.backbone.config._attn_implementation
        was_training = self.backbone.training
        self.backbone.eval()
        lengths = torch.tensor([3, 7, 1, 5]).clamp(max=longest)
        tokens = int(lengths.sum())
        weight = next(self.backbone.parameters())
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(tokens, self.backbone.config.hidden_size, generator=generator).to(weight)
        tolerance = 1e-3 if probe.dtype == torch.float32 else 5e-2  # of the largest value
        texts = PackedTexts(torch.zeros(tokens, dtype=torch.long, device=weight.device), lengths)
        segments = dataclasses.replace(Segments.plan(lengths, weight.device), longest=longest)
        read, undo = slice(None), list
        if self.item_token is not None:
            read, undo = segments.last, read_last_tokens_alone(self.backbone)
        try:
            expected = self.run_padded(probe, texts, segments)
            self.backbone.set_attn_implementation(packed_attention.NAME)
            difference = (self.run_packed(probe, segments) - expected)[read].abs().max().item()
            if difference < tolerance * expected.abs().max().item():
                return True, f"packed row ({name})"
            why = "its attention is not plain"
        except (NotImplementedError, TypeError, ValueError) as error:
            why = str(error)
        finally:
            self.backbone.train(was_training)
        undo()
        self.backbone.set_attn_implementation(before)
        return False, f"padded by length ({name}: {why})"


def recompute_layers(backbone, whether):
    """Of a transformer with gradient_checkpointing_enable, up to the backward pass of what it reads next."""
    for module in backbone.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = whether


def padded_groups(lengths):
    """[I] lengths -> PADDED_CALLS groups of similar lengths; of fewer texts than groups, some come twice."""
    order = np.argsort(lengths, kind="stable")
    return np.array_split(np.resize(order, max(len(order), PADDED_CALLS)), PADDED_CALLS)
