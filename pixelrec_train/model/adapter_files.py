"""The directory of an adapter, as peft writes it: whether it can be read, and read into its base."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import ADAPTER_FILE
from pixelrec_train.libraries import import_peft

WEIGHTS = "adapter_model.safetensors"


def check_adapter(directory, flag_name):
    """Raises InputError where its files are no adapter of LoRA's kind whose weights can be read safely."""
    try:
        found = json.loads((Path(directory) / ADAPTER_FILE).read_text(encoding="utf-8"))
        kind = found["peft_type"]
    except FileNotFoundError:
        raise InputError(
            f"{flag_name} {directory} holds no {ADAPTER_FILE}: it is no adapter. Of a run, name "
            f"…/best_model/adapter."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{flag_name} {directory}/{ADAPTER_FILE} is not peft's: {first_line(error)}"
        ) from None
    if kind != "LORA":
        raise InputError(
            f"{flag_name} {directory} is an adapter of the kind {kind}; LORA alone is merged here."
        )
    if not (Path(directory) / WEIGHTS).is_file():
        raise InputError(
            f"{flag_name} {directory} holds no {WEIGHTS}. Weights in another format (pickles, as .bin) are "
            f"not read: save it anew with safe_serialization."
        )


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


def is_of_causal_lm(directory):
    """Whether its names are those within a model with a language-model head."""
    found = json.loads((Path(directory) / ADAPTER_FILE).read_text(encoding="utf-8"))
    return found.get("task_type") == "CAUSAL_LM"
