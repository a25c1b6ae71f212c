"""The dict for deepspeed.initialize: every "auto" of the JSON becomes a number, and no flag is contradicted.

"auto" is a Hugging Face Trainer feature; plain DeepSpeed drops it or fails on it obscurely.
"""

import os
from importlib.util import find_spec

from pixelrec_train import distributed
from pixelrec_train.engine.ds_file import fixed, offloads, read, refuse_other, unflatten
from pixelrec_train.errors import InputError

SMALLEST_BUCKET = 50_000_000  # weights; the squared width of a small tower would send a layer in pieces
PACKAGE_OF = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}


def resolve(loop, world_size, hidden_size):
    """Read --deepspeed and return the dict for deepspeed.initialize.

    Optimizer and schedule are ours (engine/optim.py), with what the JSON says of them (ds_file.adopt).

    Raises:
        InputError: a contradiction to a flag, or a setting that this machine cannot follow.
    """
    path, values = loop.deepspeed, read(loop.deepspeed)
    for key, value, name, flag_value in fixed(values):
        refuse_other(loop, key, value, name, flag_value)
    batch = loop.per_device_train_batch_size * loop.gradient_accumulation_steps * world_size
    if values.get("train_batch_size", "auto") not in ("auto", batch):
        raise InputError(
            f"{path} sets train_batch_size = {values['train_batch_size']}, but the batch flags and "
            f"the number of ranks ({world_size}) give {batch}. Change --per_device_train_batch_size, "
            f"--gradient_accumulation_steps or the number of ranks."
        )
    if loop.grad_accum_dtype:
        values["data_types.grad_accum_dtype"] = loop.grad_accum_dtype
        values.setdefault("communication_data_type", loop.grad_accum_dtype)
    sizes = {  # as Hugging Face sizes them, if not too small; any other "auto" is DeepSpeed's default
        "zero_optimization.reduce_bucket_size": max(hidden_size * hidden_size, SMALLEST_BUCKET),
        "zero_optimization.stage3_prefetch_bucket_size": max(int(0.9 * hidden_size**2), SMALLEST_BUCKET),
        "zero_optimization.stage3_param_persistence_threshold": 10 * hidden_size,
    }
    values |= {key: size for key, size in sizes.items() if values.get(key) == "auto"}
    values["zero_optimization.stage"] = max(
        1, int(values["zero_optimization.stage"])
    )  # the same sums as stage 0
    check_monitors(path, values)
    place_offloaded(path, values)
    refuse_quantised(path, values, world_size)
    ours = {
        "train_micro_batch_size_per_gpu": loop.per_device_train_batch_size,
        "gradient_accumulation_steps": loop.gradient_accumulation_steps,
        "train_batch_size": batch,
        "gradient_clipping": loop.max_grad_norm,
        "bf16.enabled": loop.bf16,
    }
    not_theirs = ("optimizer", "scheduler", "fp16")
    kept = {k: v for k, v in values.items() if v != "auto" and k.split(".")[0] not in not_theirs}
    return unflatten({"steps_per_print": 10**9, "zero_allow_untested_optimizer": False} | kept | ours)


def resolve_unsharded(loop, world_size, width, what):
    """The same for a model that is too small for ZeRO-3, or an InputError. what: "SASRec is"."""
    resolved = resolve(loop, world_size, width)
    if resolved["zero_optimization"]["stage"] == 3:
        raise InputError(
            f"--deepspeed {loop.deepspeed} is ZeRO-3; {what} too small for it. Use stage 1 or 2."
        )
    return resolved


def check_monitors(path, values):
    for name, package in PACKAGE_OF.items():
        if values.get(f"{name}.enabled") is True and find_spec(package) is None:
            raise InputError(
                f"{path} enables {name}, but its package is not installed. Run pip install {package}, or "
                f"remove {name} from the JSON."
            )


def place_offloaded(path, values):
    """Offload as this machine can: none without a GPU, and by an optimizer that needs no compiler."""
    for part in ("offload_optimizer", "offload_param"):
        device, prefix = offloads(values, part), f"zero_optimization.{part}"
        if device == "nvme":
            check_nvme(path, prefix, values.get(f"{prefix}.nvme_path"))
        if device and distributed.uses_gpu():
            values["zero_force_ds_cpu_optimizer"] = False
        elif device:
            for key in [key for key in values if key.startswith(f"{prefix}.")]:
                del values[key]


def check_nvme(path, prefix, nvme_path):
    if not (isinstance(nvme_path, str) and os.path.isdir(nvme_path)):
        raise InputError(
            f"{path} sets {prefix}.nvme_path = {nvme_path!r}, which is no directory of this machine. Name "
            f"one on an NVMe disk, or set {prefix}.device to cpu."
        )
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise InputError(
            f"{path} sets {prefix}.device = nvme, which needs DeepSpeed's async_io, and that cannot be built "
            f"here. Install libaio-dev, or set the device to cpu."
        )


def refuse_quantised(path, values, world_size):
    """Raises InputError where ZeRO++ asks for kernels or groups of ranks that are not there."""
    for name in ("weights", "nontrainable_weights", "gradients"):
        key = f"zero_optimization.zero_quantized_{name}"
        if values.get(key) is True and not distributed.uses_gpu():
            raise InputError(
                f"{path} sets {key} = True (ZeRO++), which needs GPUs. Remove it, or train on GPUs."
            )
    group = values.get("zero_optimization.zero_hpz_partition_size", 1)
    if group != "auto" and group > 1 and world_size % group:
        raise InputError(
            f"{path} sets zero_optimization.zero_hpz_partition_size = {group}, by which {world_size} ranks "
            f"cannot be divided. It must be the number of GPUs of a machine."
        )
