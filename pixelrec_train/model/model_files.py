"""A causal LM's directory after the pattern of another: its weights change, the rest is as it was."""

import json
import shutil
from pathlib import Path

from pixelrec_train.files import model_files, tokenizer_files
from pixelrec_train.model.backbone import save_tensors
from pixelrec_train.model.vocabulary import META_FILE

# Besides config.json and weights: what text is made of, how it is generated, what the ids mean, code.
BESIDE = ("chat_template*", "generation_config*", META_FILE, "*.py")


def write_like(source, destination, weights, architecture, rows=None):
    """Write weights, and everything else as it is in `source`; only config.json says what has changed.

    Args:
        weights: {name: tensor} as plain transformers names them.
        architecture: the class that reads them, e.g. Qwen3ForCausalLM.
        rows: of the tables, where they are no longer those of the source.
    """
    dtype = next(iter(weights.values())).dtype
    write_beside(source, destination, dtype, architecture, rows)
    save_tensors({k: v.contiguous() for k, v in weights.items()}, Path(destination) / "model.safetensors")


def write_beside(source, destination, dtype, architecture, rows=None):
    """All but the weights; see write_like. dtype: of the weights."""
    source, destination = model_files(source), Path(destination)
    destination.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # what dtype was called; the two could contradict
    config |= {"architectures": [architecture], "dtype": str(dtype).removeprefix("torch.")}
    config |= {"vocab_size": rows} if rows else {}
    (destination / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in (*tokenizer_files(source), *(f for pattern in BESIDE for f in source.glob(pattern))):
        shutil.copy(file, destination)
