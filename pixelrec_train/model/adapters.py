"""LoRA adapters (arXiv:2106.09685) in the layers of a language model, and out of them again.

peft puts them in and computes with them. A layer q_proj becomes q_proj.base_layer, which stands still, and
q_proj.lora_A.default [r, in] and q_proj.lora_B.default [out, r], which are trained:

    y = W x + scale · B A dropout(x)
"""

from pathlib import Path

import torch
from torch import nn

from pixelrec_train.errors import InputError
from pixelrec_train.libraries import import_bitsandbytes, import_peft
from pixelrec_train.model.backbone import save_tensors

NAME = "default"  # peft's, of an adapter that nobody has named
FIRST, SECOND = f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"
WEIGHTS = "adapter_model.safetensors"
BLOCK = 64  # weights in 4 bits that share a scale


def add_adapters(model, lora, seed, device=None):
    """Put adapters into a TokenModel; they, and its new rows if `lora` says so, are all that is trained then.

    Untrained, they change nothing: B is zero. A is drawn as peft does it, the same for the same seed.

    Args:
        lora: AdapterFlags.
        device: where the layers' matrices are turned to 4 bits (QLoRA); None = they stay as they are.

    Raises:
        InputError: a library is missing, or a name of --lora_target_modules is that of no layer.
    """
    peft = import_peft()
    check_targets(model.backbone, lora)
    model.requires_grad_(False)
    if device is not None:
        quantise(model.backbone, device)
    settings = peft.LoraConfig(
        r=lora.lora_r, lora_alpha=lora.alpha, lora_dropout=lora.lora_dropout,
        target_modules=list(lora.lora_target_modules),
    )  # fmt: skip
    model.backbone.is_loaded_in_4bit = device is not None  # where peft looks for it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model.backbone, NAME)
    model.backbone.train(model.training)
    if lora.lora_train_new_rows:
        model.train_new_rows()
    model.adapters = settings


def check_targets(backbone, lora):
    """Raises InputError where a name is that of no linear layer, or a rank is no lower than a layer's."""
    layers = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear)}
    for target in lora.lora_target_modules:
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


def quantise(backbone, device):
    """Hold the matrices of all linear layers in 4 bits: NF4, its constants quantised too, products in bf16.

    Raises:
        InputError: a matrix on a CPU has columns that are no multiple of BLOCK: bitsandbytes, up to 0.50 at
            least, fills whole blocks by counting through all rows, and reads them row by row.

    Source: QLoRA (arXiv:2305.14314), section 3.
    """
    bitsandbytes = import_bitsandbytes()
    way = {"compress_statistics": True, "quant_type": "nf4"}
    linear = [
        (parent, name, layer)
        for parent in backbone.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear
    ]
    for parent, name, layer in linear:
        if torch.device(device).type == "cpu" and layer.in_features % BLOCK:
            raise InputError(
                f"--load_in_4bit on a CPU: bitsandbytes reads a matrix wrongly there whose columns are no "
                f"multiple of {BLOCK}, and {name} has {layer.in_features}. Train on a GPU, or leave it out."
            )
        small = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16, device="meta",
            **way,
        )  # fmt: skip
        small.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, module=small, **way)
        small.bias = layer.bias
        # On some CPUs it would lay the weights out anew while evaluating: nobody could read them then.
        small.support_avx512bf16_for_cpu = False
        setattr(parent, name, small.to(device))  # the step that quantises


def in_4bit(parameter):
    return getattr(parameter, "quant_state", None) is not None


def entries(parameter, size):
    """How many numbers it stands for; size: how many it holds, of which one is two in 4 bits."""
    return parameter.quant_state.shape.numel() if in_4bit(parameter) else size


def merged(backbone, tensors, settings):
    """{name: tensor} as the backbone had them without adapters, each one's product added to its layer.

    The sum is made in fp32, and has the precision of the adapters then. Weights in 4 bits are the numbers
    that they stand for, as those were computed with.

    Args:
        tensors: the backbone's complete state, on the CPU; settings: peft's LoraConfig.
    """
    plain = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if not name.endswith((FIRST, SECOND))
    }
    firsts = [name for name in tensors if name.endswith(FIRST)]
    dtype = tensors[firsts[0]].dtype
    for name, parameter in backbone.named_parameters():
        if in_4bit(parameter):
            whole = import_bitsandbytes().functional.dequantize_4bit(parameter.data, parameter.quant_state)
            plain[name.replace(".base_layer.", ".")] = whole.to("cpu", dtype)
    scale = settings.lora_alpha / settings.r
    for name in firsts:
        layer = name.removesuffix(FIRST)
        product = tensors[f"{layer}{SECOND}"].float() @ tensors[name].float()
        plain[f"{layer}.weight"] = (plain[f"{layer}.weight"].float() + scale * product).to(dtype)
    return plain


def write_adapter(model, directory, tensors, source):
    """adapter_config.json and adapter_model.safetensors, which peft loads upon the model in `source`.

    Trained rows of new tokens are in it, as peft's trainable_token_indices.

    Args:
        model: TokenModel.
        tensors: its complete state dict, on the CPU.
    """
    directory, stem = Path(directory), "base_model.model."
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        f"{stem}{model.prefix}{name.removeprefix('backbone.').replace(f'.{NAME}.', '.')}": tensor
        for name, tensor in tensors.items()
        if name.endswith((FIRST, SECOND))
    }
    indices = {}
    for part, name in zip(("embedding", "head"), model.table_names, strict=True):
        if (rows := getattr(model, part)) is not None and rows.new_rows is not None:
            if rows.new_rows.requires_grad:
                table, first = name.removesuffix(".weight"), tensors[f"{part}.old_rows"].shape[0]
                indices[table] = list(range(first, model.num_tokens))
                weights[f"{stem}{table}.token_adapter.trainable_tokens_delta"] = tensors[f"{part}.new_rows"]
    settings = import_peft().LoraConfig(
        r=model.adapters.r, lora_alpha=model.adapters.lora_alpha, lora_dropout=model.adapters.lora_dropout,
        base_model_name_or_path=str(source), task_type="CAUSAL_LM", inference_mode=True,
        trainable_token_indices=indices or None,
    )  # fmt: skip
    settings.target_modules = sorted(model.adapters.target_modules)  # not a set: the file is always the same
    settings.save_pretrained(directory)
    save_tensors({name: tensor.contiguous() for name, tensor in weights.items()}, directory / WEIGHTS)
