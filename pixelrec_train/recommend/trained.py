"""What a checkpoint was trained with."""

from pathlib import Path

from pixelrec_train.config import HllmFlags, RunFlags
from pixelrec_train.engine.resume import recorded_flags
from pixelrec_train.errors import InputError
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.checkpoints import inside, is_whole, whole_ones
from pixelrec_train.tasks.tokens import LLM


def is_generative(checkpoint):
    return (Path(checkpoint) / LLM).is_dir()


def refuse_checkpoint(model_dir):
    """Raises InputError where --model_dir is a generative checkpoint, whose language model lies in llm/."""
    if is_generative(model_dir):
        raise InputError(f"--model_dir {model_dir} is a checkpoint. Did you mean {Path(model_dir) / LLM}?")


def check_init_from(init_from, output_dir):
    """Raises InputError when --init_from is no checkpoint, or lies where this run is going to write."""
    if not init_from:
        return
    for group in (HllmFlags, RunFlags):
        settings_of(init_from, "--init_from", group)
    run_directory.check_kept(output_dir, init_from=init_from)


def settings_of(checkpoint, flag_name, group):
    """A group of the flags a checkpoint was trained with, or an InputError that says what stands there.

    group: a class of Flags; HllmFlags are those of a two-tower model alone.
    """
    directory = Path(checkpoint)
    for place in (directory / "best_model", *directory.glob("checkpoint-*-*"), *whole_ones(directory)):
        if place.is_dir():
            raise InputError(f"{flag_name} {directory} is a run. Did you mean {place}?")
    if is_whole(place := inside(directory)) and place != directory:
        raise InputError(f"{flag_name} {directory} holds a checkpoint. Did you mean {place}?")
    weights = (*directory.glob("*.safetensors"), *directory.glob(f"{LLM}/*.safetensors"))
    if not (directory / "run.json").is_file() or not weights:
        raise InputError(
            f"{flag_name} {directory} is not a checkpoint (looked from {Path.cwd()}). Expected a "
            f"checkpoint-epoch-N or best_model directory of a training run."
        )
    if issubclass(group, HllmFlags) and is_generative(directory):
        raise InputError(
            f"{flag_name} {directory} is a generative checkpoint; it must be one of a two-tower model."
        )
    return recorded_flags(directory, flag_name, group)
