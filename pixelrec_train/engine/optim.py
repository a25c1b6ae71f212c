"""AdamW with decay by shape, and its schedule: a linear warm-up, then a cosine or a line down, or none."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from pixelrec_train.engine.zero import shape_of


def decay_groups(module, weight_decay):
    """Matrices decay; vectors (norms, biases, the [ITEM] token, logit_scale) do not.

    Decided by shape and not by name: names differ between model families, shapes do not.
    """
    matrices, vectors = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (matrices if len(shape_of(parameter)) >= 2 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]  # DeepSpeed would drop it, the schedule would not


def build_optimizer(module, loop, total_steps, offloaded=False):
    """(AdamW, schedule per optimizer step). With a warm-up, step 0 has learning rate 0, as in HLLM.

    offloaded: it works on a GPU's host, where torch's fused kernel is five to eight times faster; it rounds
        otherwise in the last bit.
    """
    optimizer = torch.optim.AdamW(
        decay_groups(module, loop.weight_decay), lr=loop.learning_rate,
        betas=(loop.adam_beta1, loop.adam_beta2), eps=loop.adam_epsilon, fused=offloaded or None,
    )  # fmt: skip
    return optimizer, LambdaLR(optimizer, share_of_rate(loop, total_steps))


def share_of_rate(loop, total_steps):
    """Optimizer steps done -> the learning rate then, as a share of --learning_rate.

    Up to its end (--decay_steps, or all steps) it is that of transformers, to the bit where --min_lr is 0;
    from there on it stays at --min_lr.

    Args:
        loop: OptimisationFlags.
        total_steps: of the whole run.
    """
    end = loop.decay_steps or total_steps
    warmup = loop.warmup_ratio * end if loop.warmup_steps is None else loop.warmup_steps
    least, falling = loop.min_lr / loop.learning_rate, max(1, end - warmup)

    def share(step):
        if step < warmup:
            return step / max(1, warmup)
        if loop.lr_scheduler_type == "constant_with_warmup":
            return 1.0
        if loop.lr_scheduler_type == "linear":
            height = max(0.0, (end - step) / falling)
        else:
            height = 0.5 * (1.0 + math.cos(math.pi * min((step - warmup) / falling, 1.0)))
        return height * (1 - least) + least

    return share
