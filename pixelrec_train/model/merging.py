"""An adapter in peft's format and the language model that it was trained upon become one model."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.libraries import import_peft
from pixelrec_train.model.adapters import WEIGHTS
from pixelrec_train.model.backbone import load_backbone, second_names
from pixelrec_train.model.model_directory import ADAPTER_FILE, base_of_adapter
from pixelrec_train.model.model_files import write_like

ADAPTER, BASE = "--adapter_dir", "--base_model_dir"
CLOSE = 1e-3  # of the largest logit, in fp32


def merge(adapter, base, destination, trust=False):
    """Write a directory that plain transformers loads: the base with the adapter added to its layers.

    The sums are made in fp32 and written in the precision of the base.

    Args:
        base: None = the one that adapter_config.json names.

    Returns:
        (the base's directory, how many layers the adapter has)

    Raises:
        InputError: one of the two is not there or not whole, or they do not belong together.
    """
    check_adapter(adapter)
    base = base or named_base(adapter)
    model = load_backbone(base, BASE, "auto", trust=trust, kind=AutoModelForCausalLM).eval()
    dtype, names = model.dtype, model.state_dict().keys() - second_names(model)
    architecture = type(model).__name__
    try:
        with_adapter, layers = put_on(adapter, model.float())
        ids = torch.arange(8)[None]
        with torch.no_grad():
            before = with_adapter(ids).logits
            whole = with_adapter.merge_and_unload()
            difference = (whole(ids).logits - before).abs().max() / before.abs().max()
    except Exception as error:  # whatever a library makes of a file that anybody may have written
        raise InputError(
            f"{ADAPTER} {adapter} does not fit {BASE} {base}: {first_line(error)} Name the very model that "
            f"it was trained upon."
        ) from None
    if not difference < CLOSE:
        raise InputError(
            f"{ADAPTER} {adapter} cannot be merged into {base}: the logits differ by {difference:.1%} then."
        )
    weights = {name: whole.state_dict()[name].to(dtype) for name in sorted(names)}
    write_like(base, destination, weights, architecture)
    for pattern in ("chat_template*", "generation_config*"):  # what the adapter has learned to answer in
        for file in Path(adapter).glob(pattern):
            shutil.copy(file, destination)
    return base, layers


def check_adapter(directory):
    """Raises InputError where its files are no adapter of LoRA's kind whose weights can be read safely."""
    try:
        found = json.loads((Path(directory) / ADAPTER_FILE).read_text(encoding="utf-8"))
        kind = found["peft_type"]
    except FileNotFoundError:
        raise InputError(
            f"{ADAPTER} {directory} holds no {ADAPTER_FILE}: it is no adapter. Of a run, name "
            f"…/best_model/adapter."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{ADAPTER} {directory}/{ADAPTER_FILE} is not peft's: {first_line(error)}") from None
    if kind != "LORA":
        raise InputError(
            f"{ADAPTER} {directory} is an adapter of the kind {kind}; LORA alone is merged here."
        )
    if not (Path(directory) / WEIGHTS).is_file():
        raise InputError(
            f"{ADAPTER} {directory} holds no {WEIGHTS}. Weights in another format (pickles, as .bin) are not "
            f"read: save it anew with safe_serialization."
        )


def named_base(adapter):
    base = base_of_adapter(Path(adapter))
    if not os.path.isdir(base):
        raise InputError(
            f"{ADAPTER} {adapter} was trained upon {base}, which is no directory here (looked from "
            f"{Path.cwd()}). Say where that model lies: {BASE}."
        )
    return base


def put_on(adapter, model):
    """(the model with all of an adapter's weights in it, how many layers have one)

    Raises:
        ValueError: its weights are not those that its settings promise.
    """
    peft = import_peft()
    settings = peft.PeftConfig.from_pretrained(str(adapter))
    settings.base_model_name_or_path, settings.inference_mode = None, True
    try:
        tensors = load_file(Path(adapter) / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{WEIGHTS} cannot be read: {first_line(error)}") from None
    with_adapter = peft.get_peft_model(model, settings)
    own = peft.get_peft_model_state_dict(with_adapter, save_embedding_layers=False).keys()
    if odd := sorted(own ^ tensors.keys()):
        where = (
            "settings ask for, and its weights lack" if odd[0] in own else "weights have, and settings lack"
        )
        raise ValueError(f"{len(odd)} of its weights are not what its settings say: its {where} {odd[0]}.")
    peft.set_peft_model_state_dict(with_adapter, tensors)
    return with_adapter.eval(), sum(name.endswith("lora_A.weight") for name in tensors)
