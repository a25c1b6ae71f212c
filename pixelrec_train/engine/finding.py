"""A checkpoint as OpenOneRec's people name it: by directory and tag, or by home and step."""

import re
from pathlib import Path

from pixelrec_train.engine.checkpoint import BEST
from pixelrec_train.engine.resume import position
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_directory
from pixelrec_train.run.checkpoints import MANIFEST, NAME, OF_STEP, inside, is_whole, run_of, whole_ones


def named_by_tag(resume_from, tag, with_state, output_dir, part):
    """What --resume_from DIR/step50 --resume_from_tag global_step50 [--resume_training_state] asks for.

    Args:
        resume_from, tag, with_state: the flags; the tag may be left out.
        part: directory of the weights in a checkpoint.

    Returns:
        (a checkpoint for --resume, None) with the state of training, (None, a directory of weights) without
        it, and (None, None) where nothing was asked for.

    Raises:
        InputError: there is no such checkpoint, or its state cannot be gone on with here.
    """
    if resume_from is None:
        if tag or with_state:
            name = "--resume_from_tag" if tag else "--resume_training_state"
            raise InputError(f"{name} says nothing without --resume_from DIR/stepN.")
        return None, None
    directory = existing_directory(resume_from, "--resume_from")
    checkpoint = directory / tag if tag else inside(directory)
    if not checkpoint.is_dir():
        there = ", ".join(sorted(place.name for place in directory.glob("global_step*")))
        hint = f"It holds {there}: change --resume_from_tag." if there else expected(directory)
        raise InputError(f"--resume_from {directory} holds no {checkpoint.name}. {hint}")
    check_ours(checkpoint, f"--resume_from {directory}")
    if not with_state:
        if not (checkpoint / part).is_dir():
            raise InputError(f"--resume_from {directory} holds no {part}/: it is of another kind of model.")
        return None, checkpoint / part
    if not is_whole(checkpoint) or run_of(checkpoint.resolve()) != Path(output_dir).resolve():
        raise InputError(
            f"--resume_from {directory} with --resume_training_state goes on in the run directory of that "
            f"checkpoint, but --output_dir is {output_dir}. Set --output_dir to it, or leave out "
            f"--resume_training_state to start another run from the weights alone."
        )
    return checkpoint, None


def of_step(home, step):
    """A checkpoint of the run directory `home`. step: a number, best, latest, or a checkpoint's own name.

    Raises:
        InputError: there is none.
    """
    home = existing_directory(home, "--model_home")
    whole = sorted(whole_ones(home), key=position)
    if step == "best":
        places = [home / BEST]
    elif step == "latest":
        places = whole[-1:]
    elif re.fullmatch(r"[0-9]+", step):
        places = [inside(home / name.format(step)) for name in OF_STEP]
        places += [place for place in whole if position(place)[0] == int(step)]  # after an epoch
    else:
        places = [inside(home / step)] if re.fullmatch(NAME, step) else []
    for place in filter(Path.is_dir, places):
        check_ours(place, f"--model_home {home}")
        return place
    steps = dict.fromkeys(str(position(place)[0]) for place in whole)
    there = [*steps, *(["best"] if (home / BEST).is_dir() else [])]
    found = f"There are: {', '.join(there)}." if there else expected(home)
    raise InputError(f"--model_home {home} holds no checkpoint --step {step}. {found}")


def check_ours(checkpoint, named):
    """Raises InputError where a directory is no checkpoint of this project. named: how it was asked for."""
    if (checkpoint / MANIFEST).is_file():
        return
    if (checkpoint / ".metadata").is_file() or any(checkpoint.glob("*.distcp")):
        raise InputError(
            f"{named}: {checkpoint} was written by OpenOneRec's own training; its .metadata is a pickle, and "
            f"none is ever run here. Convert it with its own scripts, and name the converted directory."
        )
    raise InputError(
        f"{named}: {checkpoint} has no {MANIFEST}, so it is no whole checkpoint. {expected(checkpoint)}"
    )


def expected(directory):
    """What to name instead of a directory without a checkpoint."""
    newest = max(whole_ones(directory), key=position, default=None)
    return f"Did you mean {newest}?" if newest else "Expected a run directory's stepN or checkpoint-step-N."
