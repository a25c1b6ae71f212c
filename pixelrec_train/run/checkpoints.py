"""What checkpoints are called, where in them their files lie, and how one is taken away.

plain         checkpoint-epoch-3/, checkpoint-step-120/
global_step   step120/, its files in step120/global_step120/; the file `latest` beside it says step120
"""

import contextlib
import os
import re
import shutil
from pathlib import Path

from pixelrec_train.errors import InputError

MANIFEST = "manifest.json"
STATE = "train_state.json"
LATEST = "latest"
OF_STEP = ("step{}", "checkpoint-step-{}")
NAME = r"checkpoint-(epoch|step)-[0-9]+|step[0-9]+"


def name_of(state, layout):
    """Of a checkpoint where `state`, a TrainState, stands. layout: --checkpoint_layout."""
    if layout == "global_step":
        return f"step{state.step}"
    return f"checkpoint-step-{state.step}" if state.batch else f"checkpoint-epoch-{state.epoch}"


def inside(directory):
    """Where the files of a checkpoint lie, whole or still .partial."""
    directory = Path(directory)
    step = re.fullmatch(r"step([0-9]+)(\.partial)?", directory.name)
    return directory / f"global_step{step[1]}" if step else directory


def run_of(checkpoint):
    """The run directory of a checkpoint, named by where its files lie."""
    step = Path(checkpoint).parent
    return step.parent if inside(step) == Path(checkpoint) else step


def is_whole(checkpoint):
    """Whether the files of a checkpoint lie here under its final name; a .partial has a manifest, too."""
    step = checkpoint.parent
    named = step if inside(step) == checkpoint else checkpoint
    return bool(re.fullmatch(NAME, named.name)) and (checkpoint / MANIFEST).is_file()


def whole_ones(run):
    """Where the files of each whole checkpoint of a run lie."""
    named = (path for path in Path(run).glob("*") if re.fullmatch(NAME, path.name))
    return [place for place in map(inside, named) if is_whole(place)]


def steps_of(run):
    """Its directories step120 with a checkpoint that a run wrote; no other is ever taken away."""
    return [step for step in Path(run).glob("step*") if re.fullmatch(NAME, step.name) and is_ours(step)]


def is_ours(step):
    place = inside(step)
    linked = step.is_symlink() or place.is_symlink()
    return not linked and all((place / name).is_file() for name in (MANIFEST, STATE))


def stands_in_the_way(step):
    """Whether something is where a run would put its step120/global_step120, and no run wrote it."""
    if step.is_symlink() or step.exists() and not step.is_dir():
        return True
    return os.path.lexists(inside(step)) and not is_ours(step)


def check_steps_free(run):
    """Raises InputError where something stands in the way of a checkpoint that is called step120."""
    for step in sorted(Path(run).glob("step*")):
        if re.fullmatch(NAME, step.name) and stands_in_the_way(step):
            raise InputError(
                f"--output_dir {run} holds {step.name}, which no run of ours wrote; with "
                f"--checkpoint_layout global_step checkpoints are called so. Choose another directory."
            )


def set_aside(checkpoint):
    """Take its final name from a checkpoint, so that no half one is ever taken for whole.

    What else people put into step120 stays where it is.

    Returns:
        Where it lies now, to be deleted; None where there was none.

    Raises:
        OSError: what stands there was written by no run.
    """
    aside = checkpoint.with_name(f"{checkpoint.name}.old.partial")
    place = inside(checkpoint)
    if place != checkpoint and stands_in_the_way(checkpoint):
        raise OSError(f"{checkpoint} is there, and no run wrote it")
    if not place.exists():
        return None
    if aside.exists():
        shutil.rmtree(aside)
    os.replace(place, aside)
    if place != checkpoint:
        with contextlib.suppress(OSError):
            checkpoint.rmdir()
    return aside


def take_away(checkpoint):
    """Set it aside, and delete it."""
    if aside := set_aside(checkpoint):
        shutil.rmtree(aside)
