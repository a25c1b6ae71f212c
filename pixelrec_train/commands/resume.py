"""--resume: which checkpoint a run goes on from, and whether it is a checkpoint of the same run."""

import json
import re
from pathlib import Path

from pixelrec_train.commands.start import trained_config
from pixelrec_train.engine.checkpoint import NAME, read_state
from pixelrec_train.engine.manifest import MANIFEST
from pixelrec_train.errors import InputError
from pixelrec_train.flags import as_text


def checkpoint_to_resume(config):
    """The checkpoint --resume means; None = there is none yet, or nobody asked.

    Raises:
        InputError: the named one is no complete checkpoint of output_dir.
    """
    run = Path(config.output_dir)
    if config.resume is None:
        return None
    if config.resume == "auto":
        return max(filter(is_complete, run.glob("checkpoint-*")), key=position, default=None)
    checkpoint = Path(config.resume)
    if not is_complete(checkpoint) or checkpoint.resolve().parent != run.resolve():
        raise InputError(
            f"--resume {checkpoint} is no complete checkpoint in --output_dir {run}. Use --resume auto for "
            f"the newest one, or a checkpoint-… directory there; to start another run from its weights, "
            f"--init_from."
        )
    return checkpoint


def is_complete(checkpoint):
    """A directory with a manifest may still be waiting for its final name."""
    return bool(re.fullmatch(NAME, checkpoint.name)) and (checkpoint / MANIFEST).is_file()


def position(checkpoint):
    """How far it got; an epoch's last step comes before its evaluation."""
    state = read_state(checkpoint)
    return state["step"], state["epoch"]


def check_same_run(config, checkpoint, facts, world_size):
    """Raises InputError when flags, data or the global batch are not those the checkpoint was made with."""
    then = trained_config(checkpoint, "--resume", type(config))
    record = json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))
    changes = [
        f"--{name} was {as_text(getattr(then, name))}, is {as_text(getattr(config, name))}"
        for name, field in config.__dataclass_fields__.items()
        if not field.metadata["may_differ"] and getattr(then, name) != getattr(config, name)
    ]
    before = then.per_device_train_batch_size * record["ranks"]
    if before != (now := config.per_device_train_batch_size * world_size):
        changes.append(f"ranks x --per_device_train_batch_size was {before}, is {now}")
    for name in ("interactions", "item_text", "semantic_ids", "split"):
        now = facts["data"].get(name)
        if record["data"].get(name, now) != now:
            changes.append(f"the {name.replace('_', ' ')} of the data files changed")
    if changes:
        raise InputError(
            f"--resume {checkpoint}: that was another run ({'; '.join(changes)}). Put it back, or start anew "
            f"in another --output_dir (--init_from takes the weights)."
        )
