"""Both towers as programs that need none of this code: torch.export's, and ONNX of them.

Here a tower reads padded texts and histories, as everybody has them. That it gives what the model itself
gives, on real items and histories, is measured before anything is written.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.libraries import import_onnx
from pixelrec_train.model.backbone import is_causal, load_backbone, no_cache

KINDS = ("torch_export", "onnx")
TOLERANCE = 1e-4  # of the largest value, in fp32


class ItemTower(nn.Module):
    """Texts to embeddings; its weights in fp32."""

    def __init__(self, model, checkpoint, trust=False):
        """model: HLLMModel in fp32, whose items are their texts alone; checkpoint: its directory."""
        super().__init__()
        # Afresh: the model's own has its attention exchanged, and reads its last layer for [ITEM] alone.
        self.backbone = load_backbone(Path(checkpoint) / "item_llm", "the checkpoint", trust=trust)
        self.causal = is_causal(self.backbone)
        self.item_token, self.pooling = model.item_llm.item_token, model.item_llm.pooling
        self.projection = model.projection

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[I, T] tokens of texts without [ITEM], padded on the right, 1 where they are real -> [I, D]."""
        embeds = self.backbone.get_input_embeddings()(token_ids)
        lengths = attention_mask.sum(1)
        if self.item_token is not None:
            embeds, lengths = nn.functional.pad(embeds, (0, 0, 0, 1)), lengths + 1
        place = torch.arange(embeds.shape[1], device=embeds.device)
        if self.item_token is not None:
            embeds = torch.where((place == lengths[:, None] - 1)[..., None], self.item_token, embeds)
        real = place < lengths[:, None]
        # Where a token sees no later one, it sees no padding either, which is on the right.
        mask = {} if self.causal else {"attention_mask": real.long()}
        hidden = self.backbone(inputs_embeds=embeds, **mask, **no_cache(self.backbone)).last_hidden_state
        if self.item_token is not None:
            out = at(hidden, lengths - 1)
        else:
            out = pooled(self.pooling.encoder.pooling if self.pooling.encoder else "mean", hidden, real)
            for layer in self.pooling.layers:
                out = layer(out)
        return out if self.projection is None else self.projection(out)


class UserTower(nn.Module):
    """Histories of item embeddings to user embeddings; its weights in fp32."""

    def __init__(self, model):
        super().__init__()
        self.user_llm = model.user_llm

    def forward(self, item_embeddings: Tensor, mask: Tensor) -> Tensor:
        """[B, S, D] of histories, oldest first, padded on the right; [B, S] 1 where real -> [B, D]."""
        return at(self.user_llm(item_embeddings), mask.sum(1) - 1)


def at(hidden, place):
    """[B, S, D], [B] -> [B, D] the rows at these places."""
    return hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def pooled(mode, hidden, real):
    """model.pooling.pool of padded texts: [I, T, D], [I, T] bool -> [I, D]."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "last_token":
        return at(hidden, real.sum(1) - 1)
    if mode == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(1)
    weight = real.float()
    if mode == "weighted_mean":  # a token's weight is its place in the text, from 1
        weight = weight * torch.arange(1, real.shape[1] + 1, device=real.device)
    divisor = real.sum(1).float().sqrt() if mode == "sqrt_mean" else weight.sum(1)
    return (hidden * weight[..., None]).sum(1) / divisor[:, None]


def why_no_item_tower(model):
    """Why no text alone makes an item's embedding, a clause; None where it does."""
    for part, why in (
        (model.item_llm is None, "its items are ids, and no text is read"),
        (model.item_id is not None, "an item's embedding is that of its text and a vector of its own"),
        (model.item_features is not None, "--item_features are part of an item's embedding"),
        (model.offsets is not None, "--offsets are part of an item's vector"),
    ):
        if part:
            return why


def why_no_user_tower(model):
    """Why item embeddings alone do not make a user's; None where they do."""
    if model.offsets is not None:
        return "--offsets are part of a user's vector"
    if model.times is not None:
        return "it reads when items were taken (--time_features)"


def export(tower, name, examples, expected, kinds, directory):
    """Write NAME.pt2 and NAME.onnx, as kinds ask; {file: the largest difference to what is expected}.

    Args:
        tower: ItemTower or UserTower.
        examples: its two inputs, {name: tensor}, of at least two rows and columns.
        expected: what the model itself gives.

    Raises:
        InputError: it cannot be exported, or gives something else.
    """
    tower, inputs = tower.eval(), tuple(examples.values())
    shape = {0: torch.export.Dim("rows"), 1: torch.export.Dim("columns")}
    try:
        with torch.no_grad():
            program = torch.export.export(tower, inputs, dynamic_shapes=(shape, shape), strict=False)
    except Exception as error:  # of an architecture, anything
        raise InputError(
            f"torch.export cannot follow the {name} ({first_line(error)}). Leave it out: --towers none."
        ) from None
    found = {}
    if "torch_export" in kinds:
        path = Path(directory) / f"{name}.pt2"
        torch.export.save(program, path)
        found[path.name] = same(path.name, torch.export.load(path).module()(*inputs), expected)
    if "onnx" in kinds:
        path = Path(directory) / f"{name}.onnx"
        found[path.name] = same(path.name, by_onnx(program, examples, path), expected)
    return found


def by_onnx(program, examples, path):
    """Write an ONNX file; what onnxruntime makes of the examples with it."""
    runtime = import_onnx()
    names = [*examples, "embeddings"]
    made = torch.onnx.export(
        program, dynamo=True, input_names=names[:-1], output_names=names[-1:], verbose=False
    )
    made.save(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {name: tensor.numpy() for name, tensor in examples.items()})
    return torch.from_numpy(out)


def same(what, found, expected):
    """The largest difference, once it is small enough."""
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    if not difference <= TOLERANCE * max(largest, 1.0):
        raise InputError(
            f"{what} gives other embeddings than the model itself, by up to {difference:.2g}, and "
            f"at most {TOLERANCE * max(largest, 1.0):.2g} is rounding. Nothing was written."
        )
    return difference


def padded_texts(item_text, numbers, has_item_token):
    """Items of data.item_text as an ItemTower reads them: {token_ids [I, T], attention_mask [I, T]}."""
    starts, ends = (
        item_text.offsets[numbers],
        item_text.offsets[np.asarray(numbers) + 1] - int(has_item_token),
    )
    lengths = ends - starts
    column = np.arange(max(lengths.max(), 2))
    real = column < lengths[:, None]
    tokens = np.where(real, item_text.tokens[np.where(real, starts[:, None] + column, 0)], 0)
    return {"token_ids": torch.from_numpy(tokens.astype(np.int64)),
            "attention_mask": torch.from_numpy(real.astype(np.int64))}  # fmt: skip
