"""A causal LM in 8 or 4 bits by bitsandbytes, and how far it is from what it was."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pixelrec_train import distributed
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.libraries import import_bitsandbytes, load_tokenizer
from pixelrec_train.model.adapters import refuse_narrow
from pixelrec_train.model.backbone import load_backbone

TOKENS = 256  # that both read, to be compared


def quantised(source, directory, bits, trust=False):
    """Write it; {"bytes", "bytes_before": of the weights, "tokens", "same_word", "off": see the command}.

    Raises:
        InputError: bitsandbytes is not there, or cannot hold this model.
    """
    import_bitsandbytes()
    model = load_backbone(source, "--model_dir", trust=trust, kind=AutoModelForCausalLM).eval()
    tokenizer, device = load_tokenizer(source, "--model_dir", trust), distributed.device()
    if bits == 4:
        linear = [
            (name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)
        ]
        refuse_narrow(linear, device, "--bits 4", "Take --bits 8, or a GPU.")
    torch.manual_seed(0)
    ids = torch.randint(0, len(tokenizer), (1, TOKENS))
    how = BitsAndBytesConfig(load_in_8bit=True)
    if bits == 4:
        how = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    try:
        small = AutoModelForCausalLM.from_pretrained(
            str(source), local_files_only=True, trust_remote_code=trust, quantization_config=how,
            device_map={"": device}, dtype=torch.float32,
        ).eval()  # fmt: skip
        with torch.no_grad():
            before = model(ids).logits[..., : len(tokenizer)]
            after = small(ids.to(device)).logits[..., : len(tokenizer)].float().cpu()
        small.save_pretrained(directory)
    except Exception as error:  # whatever a library makes of a file that anybody may have written
        raise InputError(
            f"--model_dir {source} could not be held in {bits} bits: {first_line(error)}"
        ) from None
    tokenizer.save_pretrained(directory)
    return {
        "bytes": sum(file.stat().st_size for file in Path(directory).glob("*.safetensors")),
        "bytes_before": sum(file.stat().st_size for file in Path(source).glob("*.safetensors")),
        "tokens": TOKENS,
        "same_word": (before.argmax(-1) == after.argmax(-1)).float().mean().item(),
        "off": ((after - before).abs().max() / before.abs().max()).item(),
    }
