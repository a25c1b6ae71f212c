"""--resume: which checkpoint a run goes on from, and whether it is a checkpoint of the same run."""

import dataclasses
import json
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.engine.checkpoint import read_state
from pixelrec_train.errors import InputError
from pixelrec_train.flags import as_text
from pixelrec_train.run.checkpoints import inside, is_whole, run_of, whole_ones


def checkpoint_to_resume(resume, output_dir):
    """Where the files of the checkpoint lie that --resume means; None = there is none yet, or nobody asked.

    Raises:
        InputError: the named one is no complete checkpoint of output_dir.
    """
    run = Path(output_dir)
    if resume is None:
        return None
    if resume == "auto":
        return max(whole_ones(run), key=position, default=None)
    checkpoint = inside(resume)
    if not is_whole(checkpoint) or run_of(checkpoint.resolve()) != run.resolve():
        raise InputError(
            f"--resume {resume} is no complete checkpoint in --output_dir {run}. Use --resume auto for "
            f"the newest one, or a checkpoint-… (step…) directory there; to start another run from its "
            f"weights, --init_from."
        )
    return checkpoint


def position(checkpoint):
    """How far it got; an epoch's last step comes before its evaluation."""
    state = read_state(checkpoint)
    return state["step"], state["epoch"]


def recorded(directory, flag_name):
    """run.json of a run or a checkpoint, with its flags as they were: {"config": {name: value}, "ranks": …}.

    Raises:
        InputError: there is none that can be read.
    """
    try:
        record = json.loads((Path(directory) / "run.json").read_text(encoding="utf-8"))
        flags = {k: tuple(v) if isinstance(v, list) else v for k, v in record["config"].items()}
        return record | {"config": flags}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise not_of_this_version(directory, flag_name) from None


def recorded_flags(directory, flag_name, group):
    """Those of run.json that belong to a group, a class of Flags; one that is younger has its default."""
    found = recorded(directory, flag_name)["config"]
    try:
        return group(**{name: found[name] for name in found.keys() & group.__dataclass_fields__.keys()})
    except (TypeError, InputError):
        raise not_of_this_version(directory, flag_name) from None


def not_of_this_version(directory, flag_name):
    return InputError(
        f"{flag_name} {directory} holds no run.json of this version. Expected a checkpoint-epoch-N or "
        f"best_model directory of a training run."
    )


def check_same_run(flags, checkpoint, facts, world_size):
    """Raises InputError when flags, data or the global batch are not those the checkpoint was made with.

    flags: all of the command; one that is younger than the checkpoint must have its default.
    """
    record = recorded(checkpoint, "--resume")
    then, own = record["config"], type(flags).__dataclass_fields__
    if not {"per_device_train_batch_size", "learning_rate"} <= then.keys() <= own.keys():
        raise InputError(f"--resume {checkpoint} holds no run.json of this version, or of another command.")
    changes = [
        f"--{name} was {as_text(then.get(name, field.default))}, is {as_text(getattr(flags, name))}"
        for name, field in own.items()
        if not field.metadata["may_differ"] and then.get(name, field.default) != getattr(flags, name)
    ]
    before = then["per_device_train_batch_size"] * record["ranks"]
    if before != (now := flags.per_device_train_batch_size * world_size):
        changes.append(f"ranks x --per_device_train_batch_size was {before}, is {now}")
    for name, mark in record["data"].items():
        if isinstance(mark, str) and facts["data"].get(name, mark) != mark:
            what = name.replace("_", " ")
            changes.append(f"the {what} of the data files, or how this version reads them, changed")
    if changes:
        raise InputError(
            f"--resume {checkpoint}: that was another run ({'; '.join(changes)}). Put it back, or start anew "
            f"in another --output_dir."
        )


def check_same_on_all_ranks(flags, facts, resolved):
    """Raises InputError on all ranks where one, on another host perhaps, has other flags or other files.

    Paths may differ: what lies there is compared. resolved: the DeepSpeed JSON.
    """
    names = [field.name for field in dataclasses.fields(flags) if field.name != "local_rank"]
    mine = {f"--{name}": as_text(getattr(flags, name)) for name in names}
    mine = {name: text for name, text in mine.items() if "/" not in text}
    mine |= {f"{name} of the DeepSpeed JSON": json.dumps(value) for name, value in resolved.items()}
    mine["the list of settings of the DeepSpeed JSON"] = ", ".join(sorted(resolved))
    mine |= {f"the {name.replace('_', ' ')} of the data": mark for name, mark in facts["data"].items()}
    first, *others = distributed.gather_objects(mine)
    for rank, other in enumerate(others, 1):
        for name in sorted(first.keys() & other.keys()):
            if first[name] != other[name]:
                raise InputError(
                    f"{name} is {other[name]} on rank {rank}, and {first[name]} on rank 0. Start all "
                    f"ranks with the same flags and files."
                )


def why_nothing_is_left(loop, weights):
    """What to say where --resume finds a finished run. weights: the flag that takes those of a best_model."""
    then = recorded(loop.output_dir, "--output_dir")["config"]
    text = f"--resume: the run in {loop.output_dir} is finished; nothing to do"
    asked = [name for name in ("num_train_epochs", "max_steps") if then.get(name) != getattr(loop, name)]
    if not asked:
        return text
    was = ", ".join(f"--{name} {then.get(name)}" for name in asked)
    best = weights.format(f"{loop.output_dir}/best_model")
    return f"{text}: it was for {was}. To train on, start from its weights in another --output_dir: {best}"
