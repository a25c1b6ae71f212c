"""An adapter in peft's format and the language model that it was trained upon become one model."""

import os
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import base_of_adapter
from pixelrec_train.model.adapter_files import check_adapter, put_on
from pixelrec_train.model.backbone import load_backbone, second_names
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
    check_adapter(adapter, ADAPTER)
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


def named_base(adapter):
    base = base_of_adapter(Path(adapter))
    if not os.path.isdir(base):
        raise InputError(
            f"{ADAPTER} {adapter} was trained upon {base}, which is no directory here (looked from "
            f"{Path.cwd()}). Say where that model lies: {BASE}."
        )
    return base
