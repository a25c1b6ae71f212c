"""AdamW with decay by shape, and linear warm-up followed by a cosine to zero."""

import torch
from transformers import get_cosine_schedule_with_warmup


def decay_groups(module, weight_decay):
    """Matrices decay; vectors (norms, biases, the [ITEM] token, logit_scale) do not.

    Decided by shape and not by name: names differ between model families, shapes do not.
    """
    matrices, vectors = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            # ZeRO-3 hides the shape of a parameter it has partitioned.
            shape = getattr(parameter, "ds_shape", parameter.shape)
            (matrices if len(shape) >= 2 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]  # DeepSpeed would drop it, the schedule would not


def build_optimizer(module, config, total_steps):
    """(AdamW, schedule per optimizer step). Step 0 has learning rate 0, as in HLLM."""
    optimizer = torch.optim.AdamW(
        decay_groups(module, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8
    )
    return optimizer, get_cosine_schedule_with_warmup(
        optimizer, config.warmup_ratio * total_steps, total_steps
    )
