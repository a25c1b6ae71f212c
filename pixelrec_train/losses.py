"""Loss functions: tensors in, (loss, metrics) out. No model, no config, no files, no ranks.

Shapes: B users, S history positions, D embedding width, M negatives in the pool.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

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
    count: Tensor | None = None,
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
        count: number the sums over valid positions are divided by; default the valid positions of this
            call. A mean over ranks of that number makes every position of the global batch weigh the same.

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
    logits = nce_logits(user, positive, negatives, logit_scale, same_item_cosine=same_item_cosine)
    valid = valid.flatten()  # [P]
    count = valid.sum() if count is None else count
    count = count.clamp(min=1e-6)  # nothing valid on any rank: 0 / 1e-6, and no NaN
    loss = -logits.log_softmax(-1)[:, 0].masked_fill(~valid, 0).sum() / count  # column 0 is the positive

    with torch.no_grad():
        better = (logits[:, 1:] >= logits[:, :1]).sum(-1)  # [P] 0 = best; a tie counts against us
        metrics = {
            f"nce_top{k}_acc": ((better < k) & valid).sum() / count for k in TOP_KS if k <= logits.shape[1]
        }
        metrics["nce_samples"] = (logits.isfinite().sum(-1) * valid).sum() / count
        metrics["item_cosine"] = mean_cosine(F.normalize(negatives.float(), dim=-1))
        metrics["logit_scale"] = logit_scale.float().clamp(0.0, MAX_LOGIT_SCALE).exp().squeeze()
    return loss, metrics


def nce_logits(user, positive, negatives, logit_scale, *, same_item_cosine) -> Tensor:
    """[P, 1 + M] scaled cosines in fp32: column 0 the positive, then the pool; -inf where filtered.

    Arguments as in nce_loss; row b * S + s belongs to position s of user b.
    """
    if user.shape != positive.shape:
        raise ValueError(f"user {tuple(user.shape)} and positive {tuple(positive.shape)} must agree")
    user = F.normalize(user.flatten(0, 1).float(), dim=-1)
    positive = F.normalize(positive.flatten(0, 1).float(), dim=-1)
    negatives = F.normalize(negatives.float(), dim=-1)
    scale = hold(logit_scale.float(), 0.0, MAX_LOGIT_SCALE).exp()

    positive_logit = (user * positive).sum(-1, keepdim=True) * scale  # [P, 1]
    negative_logit = (user @ negatives.T) * scale  # [P, M]
    with torch.no_grad():
        same_item = positive @ negatives.T > same_item_cosine  # [P, M]
    # Filtered after scaling: -inf times scale would hand scale a gradient of 0 * inf = NaN.
    return torch.cat([positive_logit, negative_logit.masked_fill(same_item, -torch.inf)], dim=-1)


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
