"""Whether a directory holds a model that could be loaded here, from a look at its files alone."""

import json
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import (
    ADAPTER_FILE,
    base_of_adapter,
    existing_directory,
    is_adapter,
    model_files,
    tokenizer_files,
)
from pixelrec_train.model.adapter_files import check_adapter
from pixelrec_train.run.checkpoints import MANIFEST


def check_directory(directory, flag_name, trust=False, merges=False):
    """The Path of a model directory, or an InputError where even a look at its files says it is none.

    merges: an adapter is taken too, for load_backbone to merge, if its base is there; the Path is the base's.
    """
    directory = existing_directory(directory, flag_name)
    base = model_files(directory)
    if merges and base != directory and not is_adapter(base) and not whole_beside(directory):
        check_adapter(directory, flag_name)
        return check_directory(base, f"{flag_name} {directory} is an adapter, whose base", trust)
    if (directory / ADAPTER_FILE).is_file():
        raise InputError(f"{flag_name} {directory} {what_adapter(directory)}")
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{flag_name} {directory} is not a Hugging Face model directory: it has no config.json "
            f"(looked from {Path.cwd()})."
        )
    try:
        settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{flag_name} {directory} could not be loaded: its config.json is not valid JSON: {error}."
        ) from None
    if not isinstance(settings, dict):
        raise InputError(f"{flag_name} {directory} could not be loaded: its config.json holds no object.")
    if found := settings.get("quantization_config"):
        method = found.get("quant_method") if isinstance(found, dict) else found
        raise InputError(
            f"{flag_name} {directory} holds quantised weights ({method or 'bitsandbytes'}); those do not "
            f"train here. Use the model that they were made from."
        )
    if not trust and "auto_map" in settings:
        raise InputError(
            f"{flag_name} {directory} wants to run Python code of its own (auto_map in config.json). "
            f"Read that code; if you trust it, add --trust_remote_code (of towers: item, user or item,user)."
        )
    for file in (*directory.glob("*.safetensors"), *tokenizer_files(directory)):
        with open(file, "rb") as opened:
            if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InputError(
                    f"{flag_name} {file} is not there yet, only git-lfs's pointer to it. Run git lfs pull."
                )
    return directory


def what_adapter(directory):
    """Of a directory with an adapter_config.json: what it is, and what to do."""
    if (directory / "config.json").is_file():
        return (  # transformers would leave them unread and load the adapter's base, if peft is there
            f"holds both a model and an adapter of another ({ADAPTER_FILE}). Move one of the two away."
        )
    is_what = f"is an adapter of {base_of_adapter(directory)}, not a model."
    if whole := whole_beside(directory):
        return f"{is_what} The whole model lies beside it: {whole}."
    return (
        f"{is_what} Merge the two (python scripts/merge_adapter.py --adapter_dir {directory}), and name the "
        f"directory that this makes."
    )


def whole_beside(directory):
    """Of the adapter in a language model's checkpoint: where the whole model lies; else None."""
    whole = directory.parent / "llm"
    return whole if whole.is_dir() and (directory.parent / MANIFEST).is_file() else None


LFS_POINTER = b"version https://git-lfs"
