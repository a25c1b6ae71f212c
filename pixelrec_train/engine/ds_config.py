"""The DeepSpeed JSON: every "auto" becomes a number, and nothing in it may contradict a flag.

"auto" is a Hugging Face Trainer feature; plain DeepSpeed drops it or fails on it obscurely.
"""

import difflib
import json

from pixelrec_train.engine.ds_settings import INSIDE
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file


def resolve(config, world_size, hidden_size):
    """Read --deepspeed and return the dict for deepspeed.initialize.

    Optimizer and schedule are ours (engine/optim.py); a JSON that names them must agree with the flags.

    Raises:
        InputError: not JSON, a contradiction, an "auto" nobody knows, an unknown key, a stage other than 1-3.
    """
    path = existing_file(config.deepspeed, "--deepspeed")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=refuse_duplicates)
    except ValueError as error:
        raise InputError(f"--deepspeed {path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"--deepspeed {path} must hold a JSON object.")

    batch, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    owned = {
        "train_micro_batch_size_per_gpu": (batch, "--per_device_train_batch_size"),
        "gradient_accumulation_steps": (accumulation, "--gradient_accumulation_steps"),
        "train_batch_size": (batch * accumulation * world_size, "the batch flags and the number of ranks"),
        "gradient_clipping": (config.max_grad_norm, "--max_grad_norm"),
        "bf16.enabled": (config.bf16, "--bf16"),
        "fp16.enabled": (False, "--bf16 (fp16 is not supported)"),
        "optimizer.type": ("AdamW", "the optimizer (AdamW)"),
        "optimizer.params.lr": (config.learning_rate, "--learning_rate"),
        "optimizer.params.weight_decay": (config.weight_decay, "--weight_decay"),
    }
    from_the_model = {  # as Hugging Face sizes them
        "zero_optimization.reduce_bucket_size": hidden_size * hidden_size,
        "zero_optimization.stage3_prefetch_bucket_size": int(0.9 * hidden_size * hidden_size),
        "zero_optimization.stage3_param_persistence_threshold": 10 * hidden_size,
    }
    refuse_unknown(path, found)
    values = flatten(found)
    for key, value in values.items():
        if key in owned:
            right, flag_name = owned[key]
            if value not in ("auto", right):
                raise InputError(
                    f"{path} sets {key} = {value}, but {flag_name} says {right}. Remove {key} from the JSON; "
                    f"the flag is its only home."
                )
        elif key.split(".")[0] in ("optimizer", "scheduler"):
            raise InputError(
                f"{path} sets {key}, but the optimizer is AdamW and the schedule warm-up + cosine, both "
                "set by flags. "
                f"Remove the block {key.split('.')[0]!r} from the JSON."
            )
        elif value == "auto":
            if key not in from_the_model:
                raise InputError(f'{path} sets {key} = "auto", which has no meaning here. Write a number.')
            values[key] = from_the_model[key]
    kept = {k: v for k, v in values.items() if k not in owned and v is not None}
    ours = {k: v for k, (v, _) in owned.items() if not k.startswith(("optimizer", "fp16"))}
    resolved = unflatten(kept | ours | {"steps_per_print": 10**9, "zero_allow_untested_optimizer": False})
    zero = resolved.get("zero_optimization", {})
    if isinstance(zero.get("stage"), bool) or zero.get("stage") not in (1, 2, 3):
        raise InputError(
            f"{path} sets zero_optimization.stage = {zero.get('stage')!r}. It must be 1, 2 or 3."
        )
    for part in ("offload_optimizer", "offload_param"):
        settings = zero.get(part, {})
        if not isinstance(settings, dict) or settings.get("device", "none") != "none":
            raise InputError(f"{path} sets zero_optimization.{part}, which is not supported. Remove it.")
    return resolved


def resolve_unsharded(config, world_size, width, what):
    """The same for a model that is too small for ZeRO-3, or an InputError. what: "SASRec is"."""
    resolved = resolve(config, world_size, width)
    if resolved["zero_optimization"]["stage"] == 3:
        raise InputError(
            f"--deepspeed {config.deepspeed} is ZeRO-3; {what} too small for it. Use stage 1 or 2."
        )
    return resolved


SECTIONS = ("zero_optimization", "bf16", "fp16", "optimizer", "scheduler")
KNOWN = (*SECTIONS, *INSIDE[""])


def refuse_unknown(path, found):
    """A misspelt section would be ignored, and the run be another one than was asked for."""
    for key, value in found.items():
        refuse_other_than(KNOWN, key, path)
        if key in SECTIONS and not isinstance(value, dict):
            raise InputError(f"{path} sets {key} = {value!r}; it must be an object with settings in it.")
        for name in value if key in INSIDE else ():
            refuse_other_than(INSIDE[key], name, f"{path}, {key},")
            refuse_wrong_kind(INSIDE[key][name], value[name], f"{path} sets {key}.{name}")
        if key in INSIDE[""]:
            refuse_wrong_kind(INSIDE[""][key], value, f"{path} sets {key}")


def refuse_other_than(known, key, place):
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(f"{place} has a key {key!r} that is not used here.{hint} Remove or correct it.")


def refuse_wrong_kind(kind, value, setting):
    """DeepSpeed would say it too, but only when it starts, and a plan would have passed."""
    if value not in ("auto", None) and not kind.allows(value):
        raise InputError(f"{setting} = {value!r}; it must be {kind.words}.")


def refuse_duplicates(pairs):
    keys = [key for key, _ in pairs]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ValueError(f"the key {', '.join(sorted(twice))} stands there twice")
    return dict(pairs)


def flatten(tree, prefix=""):
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty object stays one."""
    flat = {}
    for key, value in tree.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
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
