"""Loss functions: tensors in, (loss, metrics) out. No model, no config, no files, no ranks.

Shapes: B users, S history positions, D embedding width, M negatives in the pool.
"""

import math
from functools import partial
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TOP_KS = (1, 5, 10, 50, 100)
MAX_LOGIT_SCALE = math.log(100)


def nce_loss(
    user: Tensor,
    positive: Tensor,
    negatives: Tensor,
    valid: Tensor,
    logit_scale: Tensor,
    *,
    same_item_cosine: float,
    chunk: int | None = None,
    count: Tensor | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of every next item against one pool of negatives, in fp32.

    Args:
        user: [B, S, D] user_llm output; row s has read items 0..s and no later one.
        positive: [B, S, D] embedding of item s + 1, the item to be found.
        negatives: [M, D] sampled items, already gathered over all ranks.
        valid: [B, S] bool; False where the history is padding.
        logit_scale: [1] ln(1 / temperature), held in [0, ln 100].
        same_item_cosine: a negative closer than this to the positive is taken for the same product
            under another id, and leaves the pool for that position alone.
        chunk: negatives scored at a time; their scores are computed again in the backward pass, so that
            memory is that of [P, chunk]. None = all at once.
        count: number the sums over valid positions are divided by; default the valid positions of this
            call. A mean over ranks of that number makes every position of the global batch weigh the same.
        beside: [P] of the positives and [P, M] of the negatives, for the P = B * S positions: what is added
            to their scores; -inf leaves a negative out. None = nothing.

    Returns:
        The mean loss in nats, 0 where nothing is valid, and detached scalars divided by the same count:
        "nce_top{k}_acc" the share of positives among the k best of positive + pool, for every k the pool
        can fill; "nce_samples" the mean number of candidates left, the positive included. Besides,
        "item_cosine" the mean cosine of two pool items and "logit_scale" as applied (its exp).

    Raises:
        ValueError: user and positive differ in shape.

    Source: HLLM, arXiv:2409.12740; the cosine filter is from the released code only.
    """
    # All P = B * S positions are computed and padded ones weigh nothing: picking would wait for the GPU.
    if user.shape != positive.shape:
        raise ValueError(f"user {tuple(user.shape)} and positive {tuple(positive.shape)} must agree")
    user, positive, negatives = (
        F.normalize(x.flatten(0, -2).float(), dim=-1) for x in (user, positive, negatives)
    )
    scale = hold(logit_scale.float(), 0.0, MAX_LOGIT_SCALE).exp()
    right = (user * positive).sum(-1) * scale  # [P]
    if beside:
        right = right + beside[0]
    score = partial(score_pool, user, positive, right, scale=scale, same_item_cosine=same_item_cosine)
    if chunk and chunk < len(negatives):
        score = partial(checkpoint, score, use_reentrant=False)
    size = chunk or len(negatives)
    added = beside[1].split(size, 1) if beside else repeat(None)
    parts = [score(part, with_it) for part, with_it in zip(negatives.split(size), added, strict=False)]
    wrong, better, left = zip(*parts, strict=True)
    better, left = sum(better), sum(left)  # [P]

    valid = valid.flatten()  # [P]
    count = valid.sum() if count is None else count
    count = count.clamp(min=1e-6)  # nothing valid on any rank: 0 / 1e-6, and no NaN
    loss = torch.stack([right, *wrong]).logsumexp(0) - right  # [P]
    loss = loss.masked_fill(~valid, 0).sum() / count

    with torch.no_grad():
        metrics = {
            f"nce_top{k}_acc": ((better < k) & valid).sum() / count for k in TOP_KS if k <= len(negatives) + 1
        }
        metrics["nce_samples"] = ((1 + left) * valid).sum() / count
        metrics["item_cosine"] = mean_cosine(negatives)
        metrics["logit_scale"] = scale.squeeze()
    return loss, {name: value.detach() for name, value in metrics.items()}


def score_pool(user, positive, right, negatives, added, *, scale, same_item_cosine):
    """What a part of the pool adds to each position: log of its summed exp scores, and two counts.

    Args:
        user, positive: [P, D] unit rows; negatives: [M, D] unit rows.
        right: [P] score of the positive.
        added: [P, M] to the scores of the negatives, or None.

    Returns:
        [P] logsumexp of the scores of the negatives left, -inf where none is; [P] how many of them score at
        least as high as the positive (a tie counts against us); [P] how many are left.
    """
    logits = nce_logits(user, positive, negatives, scale, same_item_cosine)
    if added is not None:
        logits = logits + added
    with torch.no_grad():
        better, left = (logits >= right[:, None]).sum(-1), logits.isfinite().sum(-1)
    return logits.logsumexp(-1), better, left


def nce_logits(user, positive, negatives, scale, same_item_cosine):
    """[P, M] scaled cosines of unit rows [P, D], [M, D]; -inf where a negative is taken for the positive."""
    with torch.no_grad():
        same_item = positive @ negatives.T > same_item_cosine
    # Filtered after scaling: -inf times scale would hand scale a gradient of 0 * inf = NaN.
    return ((user @ negatives.T) * scale).masked_fill(same_item, -torch.inf)


def mean_cosine(normalised: Tensor) -> Tensor:
    """Mean cosine over all pairs of different rows; 1 = collapsed. [M, D] unit rows -> scalar."""
    rows = normalised.shape[0]
    total = normalised.sum(0).square().sum()  # all M * M cosines, the M of a row with itself among them
    return (total - rows) / max(rows * (rows - 1), 1)


def hold(x: Tensor, low: float, high: float) -> Tensor:
    """x clamped to [low, high]; unlike clamp, a gradient that leads back inside still passes."""
    return _Hold.apply(x, low, high)


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        outward = ((x >= high) & (gradient < 0)) | ((x <= low) & (gradient > 0))  # descent moves against it
        return gradient.masked_fill(outward, 0.0), None, None
