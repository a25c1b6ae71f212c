"""The DeepSpeed JSON as people bring it: read, checked, and which flags it fixes. Imports nothing heavy."""

import difflib
import json

from pixelrec_train.engine.ds_settings import INSIDE, OLD_NAMES, WITHOUT_EFFECT
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file, refuse_repeated_keys
from pixelrec_train.flags import given, idle, replace
from pixelrec_train.run.hub import described

FLAG_OF = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "bf16.enabled": "bf16",
    "data_types.grad_accum_dtype": "grad_accum_dtype",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.weight_decay": "weight_decay",
    "optimizer.params.betas": ("adam_beta1", "adam_beta2"),
    "optimizer.params.eps": "adam_epsilon",
    "scheduler.type": "lr_scheduler_type",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "scheduler.params.warmup_num_steps": "warmup_steps",
}
SCHEDULES = {"WarmupLR": "constant_with_warmup", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}


def adopt(loop, given):
    """Values of flags that the DeepSpeed JSON fixes: they are the run's.

    Args:
        loop: LoopFlags; the JSON is loop.deepspeed.
        given: names of the flags that stood on the command line.

    Returns:
        {flag: value}, for dataclasses.replace.

    Raises:
        InputError: the JSON is not one for this project, or contradicts the command line or itself.
    """
    found, changes = read(loop.deepspeed), {}
    for key, value, name, flag_value in fixed(found):
        if name in given:
            refuse_other(loop, key, value, name, flag_value)
        if name == "warmup_steps" and "warmup_ratio" in given:
            raise InputError(
                f"{loop.deepspeed} sets {key} = {value}, but --warmup_ratio stands on the command line. "
                f"Leave one of them out."
            )
        if changes.setdefault(name, flag_value) != flag_value:
            raise InputError(
                f"{loop.deepspeed} sets {key} = {value!r}, but by another key --{name} is {changes[name]}. "
                f"They must agree."
            )
    return changes


def adopted(flags):
    """All flags of a command with what its DeepSpeed JSON fixes in place of their defaults; see adopt."""
    if flags.warmup_steps is not None and {"warmup_steps", "warmup_ratio"} <= given(flags):
        raise InputError("--warmup_steps and --warmup_ratio say the same thing twice. Leave one out.")
    return replace(flags, **adopt(flags, given(flags)))


def refuse_other(loop, key, value, name, flag_value):
    """Raises InputError where the flag has another value than the JSON."""
    if (says := getattr(loop, name)) != flag_value:
        meaning = "" if value == flag_value or isinstance(value, list) else f" ({flag_value})"
        raise InputError(
            f"{loop.deepspeed} sets {key} = {value}{meaning}, but --{name} says {says}. Remove {key} from "
            f"the JSON, or leave out --{name}."
        )


def fixed(found):
    """Yields (key, value, flag, the flag's value) of what the JSON fixes of a run."""
    for key, names in FLAG_OF.items():
        value = found.get(key, "auto")
        if value == "auto":
            continue
        if isinstance(names, tuple):
            yield from ((key, value, name, part) for name, part in zip(names, value, strict=True))
        elif isinstance(value, str):
            yield key, value, names, SCHEDULES.get(value, value)
        else:
            yield key, value, names, int(value) if names.endswith(("steps", "size")) else value


def remarks(loop, on_gpu):
    """Lines for the plan: what a --config file and the JSON fix, what has no effect, what came from a hub,
    and what of the JSON is read otherwise than it stands there."""
    yield from idle(loop)
    yield from described(loop)
    if loop.grad_accum_dtype:
        yield f"engine: gradients are added up and sent in {loop.grad_accum_dtype}"
    found = read(loop.deepspeed)
    flags = {name: value for _, _, name, value in fixed(found)}
    if flags:
        yield f"from {loop.deepspeed}: {', '.join(f'{name} {value}' for name, value in flags.items())}"
    if "scheduler.type" in found and "scheduler.params.warmup_type" not in found:
        yield "schedule: its warm-up is linear (DeepSpeed's own would be logarithmic)"
    if found["zero_optimization.stage"] == 0:
        yield "engine: stage 0 trains as ZeRO-1, which computes the same and holds less"
    asked = [part for part in ("offload_optimizer", "offload_param") if offloads(found, part)]
    if asked and not on_gpu:
        yield f"engine: without a GPU, {', '.join(asked)} of the DeepSpeed JSON: no effect"
    if names := [name for name in WITHOUT_EFFECT if any(key.split(".")[0] == name for key in found)]:
        yield f"engine: {', '.join(names)} of the DeepSpeed JSON: no effect here"


def offloads(found, part):
    """The device, "cpu" or "nvme", that `part` is offloaded to, or None."""
    device = found.get(f"zero_optimization.{part}.device", "none")
    return None if device in ("none", "auto") else device


def read(path):
    """The settings of the JSON, flat: {"zero_optimization.stage": 2, …}; every "auto" still to resolve.

    Raises:
        InputError: it is not JSON, or holds a key that is not known or a value that is not of its kind.
    """
    path = existing_file(path, "--deepspeed")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=refuse_repeated_keys)
    except ValueError as error:
        raise InputError(f"--deepspeed {path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"--deepspeed {path} must hold a JSON object.")
    found = with_new_names(path, found)
    check(path, "", found)
    settings = {key: value for key, value in flatten(found).items() if value is not None}
    if (stage := settings.get("zero_optimization.stage")) in (None, "auto"):
        raise InputError(f"{path} sets zero_optimization.stage = {stage!r}; it must be 0, 1, 2 or 3.")
    return settings


def with_new_names(path, found, section=""):
    renamed = {}
    for key, value in found.items():
        full = f"{section}{key}"
        if isinstance(value, dict):
            value = with_new_names(path, value, f"{full}.")
        if full in OLD_NAMES:
            new = (OLD_NAMES[full] or "").removeprefix(section)
            if not new or value in (None, False):
                continue
            if new in found:
                raise InputError(f"{path} sets {full} and its new name {new}. Remove {key}.")
            key, value = new, {"device": "cpu"} if value is True and "offload" in new else value
        renamed[key] = value
    return renamed


def check(path, section, found):
    """A misspelt setting would be ignored, and the run be another one than was asked for."""
    for key, value in found.items():
        name, known = f"{section}.{key}".lstrip("."), INSIDE[section]
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            place = f"{path}, {section}," if section else path
            raise InputError(f"{place} has a key {key!r} that is not used here.{hint} Remove or correct it.")
        if not (value is None or value == "auto" and name not in INSIDE or known[key].allows(value)):
            raise InputError(f"{path} sets {name} = {value!r}; it {known[key].words}.")
        if name in INSIDE and value:
            check(path, name, value)


def flatten(tree, prefix=""):
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty object stays one."""
    flat = {}
    for key, value in tree.items():
        inside = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return flat


def unflatten(flat):
    tree = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
