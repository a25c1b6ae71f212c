"""Libraries that are heavy, or may be missing: imported where they are first needed, with a sentence."""

import importlib
import os
import sys
from pathlib import Path

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import model_files

BLAS_FROM = 20  # queries


def import_faiss():
    """faiss, which searches by matrix products as soon as there are BLAS_FROM queries at a time.

    By itself 1.15 begins with 128,000 queries, and takes eight times as long for the blocks asked here.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            f"faiss cannot be imported ({error}). Install it: pip install faiss-cpu (or faiss-gpu on a GPU "
            f"machine). Without it, --retrieval exact ranks with torch alone."
        ) from None
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM
    return faiss


def import_peft():
    """peft, which puts adapters into layers. It takes seconds, so only who trains or merges adapters asks."""
    try:
        import peft
    except ImportError as error:
        raise InputError(
            f"peft cannot be imported ({first_line(error)}). Install it: pip install peft accelerate. "
            f"Without it there are no adapters: leave out --lora_r."
        ) from None
    return peft


def import_bitsandbytes():
    """bitsandbytes, which holds weights in 4 bits."""
    try:
        import bitsandbytes
    except (ImportError, RuntimeError, OSError) as error:  # its CUDA library may not be of this machine
        raise InputError(
            f"bitsandbytes cannot be imported ({first_line(error)}). Install it: pip install bitsandbytes. "
            f"Without it weights are not held in 4 bits: leave out --load_in_4bit."
        ) from None
    return bitsandbytes


def import_datasketch():
    """datasketch, which finds texts that are nearly equal."""
    try:
        import datasketch
    except ImportError as error:
        raise InputError(
            f"datasketch cannot be imported ({first_line(error)}). Install it: pip install datasketch. "
            f"Without it near duplicates are not found: --similarity None."
        ) from None
    return datasketch


def import_uvicorn():
    """uvicorn, which listens, once FastAPI is there as well, which answers."""
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InputError(
            f"the server's packages cannot be imported ({first_line(error)}). Install them: pip install "
            f"fastapi uvicorn."
        ) from None
    return uvicorn


def import_tracker(name):
    """wandb, swanlab or trackio, which show the figures of runs beside each other."""
    try:
        module = importlib.import_module(name)
        if not getattr(module, "__file__", None):  # ./wandb, which wandb itself leaves, looks like a package
            raise ImportError(f"{next(iter(module.__path__))} is a directory, and no package is installed")
    except Exception as error:  # of a package, or one that it needs, anything may go wrong
        raise InputError(
            f"{name} cannot be imported ({first_line(error)}). Install it: pip install {name}. Without it, "
            f"leave it out of --report_to; TensorBoard shows the same figures."
        ) from None
    return module


def import_onnx():
    """onnxruntime, which runs what torch.onnx writes with the help of onnx and onnxscript."""
    try:
        for package in ("onnx", "onnxscript"):
            importlib.import_module(package)
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            f"{error.name} cannot be imported ({first_line(error)}). Install all three: pip install onnx "
            f"onnxscript onnxruntime. Without them, --towers torch_export writes programs of torch alone."
        ) from None


def import_hub(package, text, flag_name):
    """huggingface_hub or modelscope, which download models by name."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{flag_name} {text} is to be had by {package}, which cannot be imported ({first_line(error)}). "
            f"Install it: pip install {package}; or copy the model to this machine and give its directory."
        ) from None


def load_tokenizer(directory, flag_name="the model directory", trust=False):
    """The tokenizer of a Hugging Face directory; never from a hub, with its own code if `trust`.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers import AutoTokenizer

    asked, directory = directory, model_files(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=trust
        )
        # transformers makes one that knows no word where its files are missing.
        names = tokenizer.vocab_files_names.values()
        if names and not any((Path(directory) / name).is_file() for name in names):
            raise ValueError(f"none of its files is there ({', '.join(names)})")
        if not trust and "auto_map" in tokenizer.init_kwargs:
            raise ValueError(
                "it wants to run Python code of its own (auto_map in tokenizer_config.json). Read that code; "
                "if you trust it, add --trust_remote_code item"
            )
        return tokenizer
    except Exception as error:  # whatever a library makes of a file that anybody may have written
        raise InputError(
            f"{flag_name} {asked} has no tokenizer that can be loaded: {first_line(error)} "
            f"It must be a Hugging Face directory with tokenizer.json or the files it is made from."
        ) from None


def spare_sklearn():
    """Before transformers is imported: it asks once whether scikit-learn is there, and then loads it for
    assisted generation, which nobody uses here. That is 1.5 CPU-seconds of every process."""
    from transformers.utils import import_utils

    there = sys.modules.get("sklearn", import_utils)
    if there is import_utils:
        sys.modules["sklearn"] = None  # to whoever asks now it is absent
        import_utils.is_sklearn_available()
        del sys.modules["sklearn"]
