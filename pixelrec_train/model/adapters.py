"""LoRA adapters (arXiv:2106.09685) in the layers of a language model, and out of them again.

peft puts them in and computes with them. A layer q_proj becomes q_proj.base_layer, which stands still, and
q_proj.lora_A.default [r, in] and q_proj.lora_B.default [out, r], which are trained:

    y = W x + scale · B A dropout(x)

With DoRA every row of W + scale · B A is brought to a length that is trained, q_proj.lora_magnitude_vector.
"""

import dataclasses
import re
from pathlib import Path

import torch
from torch import nn

from pixelrec_train.config.adapters import ALL_LINEAR
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import import_bitsandbytes, import_peft
from pixelrec_train.model import cpu_layers
from pixelrec_train.model.adapter_files import WEIGHTS
from pixelrec_train.model.backbone import save_tensors, under

NAME = "default"  # peft's, of an adapter that nobody has named
FIRST, SECOND = f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"
LENGTHS = f".lora_magnitude_vector.{NAME}.weight"  # [out], of DoRA
TWO_TOWERS = ("item", "user")
BLOCK = 64  # weights in 4 bits that share a scale


def add_adapters(backbone, lora, seed, device=None):
    """Put adapters into a transformer; they are all of it that is trained then.

    Untrained, they change nothing: B is zero. A is drawn as peft does it, the same for the same seed.

    Args:
        lora: LoraFlags.
        device: where the layers' matrices are turned to 4 bits (QLoRA); None = they stay as they are.

    Raises:
        InputError: a library is missing, or --lora_target_modules names no layer.
    """
    peft = import_peft()
    targets = checked_targets(backbone, lora)
    backbone.requires_grad_(False)
    if device is not None:
        quantise(backbone, device)
    settings = peft.LoraConfig(
        r=lora.lora_r, lora_alpha=lora.alpha, lora_dropout=lora.lora_dropout, target_modules=targets,
        use_rslora=lora.lora_use_rslora, use_dora=lora.lora_use_dora,
    )  # fmt: skip
    backbone.is_loaded_in_4bit = device is not None  # where peft looks for it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, backbone, NAME)
    backbone.train(backbone.training)


def adapt_towers(model, flags, seed):
    """Put adapters into the LLMs of an HLLMModel that TowerAdapterFlags say; all else trains as before."""
    for number, tower in enumerate(TWO_TOWERS):
        if tower in flags.adapted_towers:
            add_adapters(getattr(model, f"{tower}_llm").backbone, flags, seed + number)


def lora_of(backbone):
    """peft's LoraConfig of the adapters in it, None without."""
    return getattr(backbone, "peft_config", {}).get(NAME)


def checked_targets(backbone, lora):
    """The layers for peft, by names or their last parts.

    Raises InputError where a name is that of no linear layer, or a rank is no lower than a layer's.
    """
    layers = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear)}
    targets, pattern = list(lora.lora_target_modules), lora.lora_pattern
    if targets == [ALL_LINEAR]:
        targets = list(layers)
    elif pattern:
        # As peft reads it upon the backbone, or upon the causal LM around it.
        outer = f"{backbone.base_model_prefix}."
        fits = re.compile(pattern).fullmatch
        targets = [name for name in layers if fits(name) or fits(outer + name)] or [pattern]
    for target in targets:
        named = [layer for name, layer in layers.items() if f".{name}".endswith(f".{target}")]
        if not named:
            there = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise InputError(
                f"--lora_target_modules: {target} is no linear layer of {type(backbone).__name__}. There "
                f"are: {there}."
            )
        if lora.lora_r > (full := min(min(layer.weight.shape) for layer in named)):
            raise InputError(
                f"--lora_r {lora.lora_r} is above {full}, the highest rank that {target} can have: its "
                f"adapter would be larger than itself. Lower it."
            )
    return targets


def quantise(backbone, device):
    """Hold the matrices of all linear layers in 4 bits: NF4, its constants quantised too, products in bf16.

    Raises:
        InputError: as refuse_narrow.

    Source: QLoRA (arXiv:2305.14314), section 3.
    """
    bitsandbytes = import_bitsandbytes()
    way = {"compress_statistics": True, "quant_type": "nf4"}
    linear = [
        (parent, name, layer)
        for parent in backbone.modules()
        for name, layer in parent.named_children()
        if type(layer) in (nn.Linear, cpu_layers.Linear)
    ]
    refuse_narrow([x[1:] for x in linear], device, "--load_in_4bit", "Train on a GPU, or leave it out.")
    for parent, name, layer in linear:
        small = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16, device="meta",
            **way,
        )  # fmt: skip
        small.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, module=small, **way)
        small.bias = layer.bias
        # On some CPUs it would lay the weights out anew while evaluating: nobody could read them then.
        small.support_avx512bf16_for_cpu = False
        setattr(parent, name, small.to(device))  # the step that quantises


def refuse_narrow(layers, device, asked, advice):
    """Raises InputError where bitsandbytes, up to 0.50 at least, reads a matrix wrongly: on a CPU it fills
    blocks by counting through all rows, and reads them row by row.

    Args:
        layers: [(name, linear layer)]
        asked: the flag; advice: a sentence what to do.
    """
    for name, layer in layers if torch.device(device).type == "cpu" else ():
        if layer.in_features % BLOCK:
            raise InputError(
                f"{asked} on a CPU: bitsandbytes reads a matrix wrongly there whose columns are no multiple "
                f"of {BLOCK}, and {name} has {layer.in_features}. {advice}"
            )


def in_4bit(parameter):
    return getattr(parameter, "quant_state", None) is not None


def entries(parameter, size):
    """How many numbers it stands for; size: how many it holds, of which one is two in 4 bits."""
    return parameter.quant_state.shape.numel() if in_4bit(parameter) else size


def merged(backbone, tensors):
    """{name: tensor} as the backbone had them without adapters, each one's product added to its layer.

    With DoRA, every row of the sum is brought to its length. The sum is made in fp32, and has the precision
    of the adapters then. Weights in 4 bits are the numbers that they stand for, as those were computed with.

    Args:
        tensors: the backbone's complete state, on the CPU.
    """
    plain = {name.replace(".base_layer.", "."): x for name, x in tensors.items() if not is_of_adapter(name)}
    firsts = [name for name in tensors if name.endswith(FIRST)]
    if not firsts:
        return plain
    dtype = tensors[firsts[0]].dtype
    for name, parameter in backbone.named_parameters():
        if in_4bit(parameter):
            whole = import_bitsandbytes().functional.dequantize_4bit(parameter.data, parameter.quant_state)
            plain[name.replace(".base_layer.", ".")] = whole.to("cpu", dtype)
    for name in firsts:
        layer = name.removesuffix(FIRST)
        scale = backbone.get_submodule(layer).scaling[NAME]
        product = tensors[f"{layer}{SECOND}"].float() @ tensors[name].float()
        weight = plain[f"{layer}.weight"].float() + scale * product
        if (lengths := tensors.get(f"{layer}{LENGTHS}")) is not None:
            weight *= (lengths.float() / weight.norm(dim=1))[:, None]
        plain[f"{layer}.weight"] = weight.to(dtype)
    return plain


def is_of_adapter(name):
    return name.endswith((FIRST, SECOND, LENGTHS))


def write_adapters_of_towers(model, directory, tensors):
    """item_llm_adapter/ and user_llm_adapter/ of an HLLMModel's, see write_adapter; tensors: its state."""
    for name in (f"{tower}_llm" for tower in TWO_TOWERS):
        tower = getattr(model, name)
        if tower is not None and lora_of(tower.backbone):
            own, source = under(f"{name}.backbone.", tensors), tower.backbone.name_or_path
            write_adapter(tower.backbone, Path(directory) / f"{name}_adapter", own, source)


def write_adapter(backbone, directory, tensors, source, prefix="", kind="FEATURE_EXTRACTION", rows=None):
    """adapter_config.json and adapter_model.safetensors, which peft loads upon the model in `source`.

    Args:
        tensors: the backbone's complete state, on the CPU.
        prefix: of its names within that model, "model." in a causal LM, of kind "CAUSAL_LM".
        rows: {table: (numbers of its rows, [n, D] what they are)} of new tokens that were trained: they are
            in it as peft's trainable_token_indices.
    """
    directory, stem, rows = Path(directory), "base_model.model.", rows or {}
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        # peft's files name neither an adapter nor, of the lengths, that they are a weight.
        stem + prefix + name.replace(LENGTHS, ".lora_magnitude_vector").replace(f".{NAME}.", "."): tensor
        for name, tensor in tensors.items()
        if is_of_adapter(name)
    }
    for table, (_, values) in rows.items():
        weights[f"{stem}{table}.token_adapter.trainable_tokens_delta"] = values
    settings = dataclasses.replace(
        lora_of(backbone), base_model_name_or_path=str(source), task_type=kind, inference_mode=True,
        trainable_token_indices={table: numbers for table, (numbers, _) in rows.items()} or None,
    )  # fmt: skip
    settings.target_modules = sorted(settings.target_modules)  # not a set: the file is always the same
    settings.save_pretrained(directory)
    save_tensors({name: tensor.contiguous() for name, tensor in weights.items()}, directory / WEIGHTS)
