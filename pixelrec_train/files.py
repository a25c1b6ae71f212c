"""Files: those that make up a tokenizer, and writing one whole or not at all."""

import json
import os
from pathlib import Path

TOKENIZER = ("tokenizer*", "vocab*", "merges*", "*_tokens*.json", "*.model", "*.tiktoken", "tokenization*.py")


def tokenizer_files(directory):
    """The files of a Hugging Face directory that make up its tokenizer, sorted by name.

    They name the token cache, and travel with an exported model.
    """
    return sorted({file for pattern in TOKENIZER for file in Path(directory).glob(pattern)})


def write_json(path, value):
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_whole(path, text):
    """Whole or not at all: written beside and moved into place."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
