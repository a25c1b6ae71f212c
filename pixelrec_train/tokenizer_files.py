"""The files of a Hugging Face directory that make up its tokenizer.

They name the token cache, and travel with an exported model.
"""

from pathlib import Path

PATTERNS = ("tokenizer*", "vocab*", "merges*", "*_tokens*.json", "*.model", "*.tiktoken", "tokenization*.py")


def tokenizer_files(directory):
    """The paths, sorted by name."""
    return sorted({file for pattern in PATTERNS for file in Path(directory).glob(pattern)})
