"""AdamW with decay by shape, and its schedule: a linear warm-up, then a cosine or a line to zero, or none."""

import torch
from transformers import get_scheduler

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


def build_optimizer(module, loop, total_steps):
    """(AdamW, schedule per optimizer step). With a warm-up, step 0 has learning rate 0, as in HLLM."""
    optimizer = torch.optim.AdamW(
        decay_groups(module, loop.weight_decay), lr=loop.learning_rate,
        betas=(loop.adam_beta1, loop.adam_beta2), eps=loop.adam_epsilon,
    )  # fmt: skip
    warmup = loop.warmup_ratio * total_steps if loop.warmup_steps is None else loop.warmup_steps
    return optimizer, get_scheduler(loop.lr_scheduler_type, optimizer, warmup, total_steps)
