"""What a checkpoint was trained with."""

import json
from pathlib import Path

from pixelrec_train.config import TrainConfig
from pixelrec_train.errors import InputError
from pixelrec_train.run import directory as run_directory
from pixelrec_train.tasks.tokens import LLM


def check_init_from(config):
    """Raises InputError when --init_from is no checkpoint, or lies where this run is going to write."""
    if not config.init_from:
        return
    trained_config(config.init_from, "--init_from")
    run_directory.check_kept(config.output_dir, init_from=config.init_from)


def trained_config(checkpoint, flag_name, config_class=TrainConfig):
    """The config a checkpoint was made with, or an InputError that says what stands there instead."""
    directory = Path(checkpoint)
    for inside in (directory / "best_model", *directory.glob("checkpoint-*-*")):
        if inside.is_dir():
            raise InputError(f"{flag_name} {directory} is a run. Did you mean {inside}?")
    weights = (*directory.glob("*.safetensors"), *directory.glob(f"{LLM}/*.safetensors"))
    if not (directory / "run.json").is_file() or not weights:
        raise InputError(
            f"{flag_name} {directory} is not a checkpoint (looked from {Path.cwd()}). Expected a "
            f"checkpoint-epoch-N or best_model directory of a training run."
        )
    if config_class is TrainConfig and (directory / LLM).is_dir():
        raise InputError(
            f"{flag_name} {directory} is a generative checkpoint; it must be one of a two-tower model."
        )
    try:
        found = json.loads((directory / "run.json").read_text(encoding="utf-8"))["config"]
        return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        raise InputError(
            f"{flag_name} {directory} holds no run.json of this version. Expected a checkpoint-epoch-N or "
            f"best_model directory of a training run."
        ) from None
