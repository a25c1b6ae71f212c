"""Where embeddings of items come from: a trained two-tower checkpoint, any encoder, or a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from pixelrec_train import distributed
from pixelrec_train.data import item_fields, item_text
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.inputs import read_interactions, taken_in_training
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_file
from pixelrec_train.model.backbone import check_directory, check_vocabulary, load_backbone
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.recommend.checkpoints import load_towers
from pixelrec_train.recommend.frozen_texts import embed_texts
from pixelrec_train.sentence_encoder import SentenceEncoder


class Items(NamedTuple):
    item_ids: list[str]
    embeddings: np.ndarray  # [N, D] fp32
    interactions: np.ndarray | None  # [N] how often each was taken in training, where that is known
    source: str
    embedder: dict | None = None  # what embeds more items alike: flags of scripts/build_semantic_ids.py

    def check(self):
        """Itself, or an InputError where it holds a number that is none."""
        if not np.isfinite(self.embeddings).all():
            row = int(np.flatnonzero(~np.isfinite(self.embeddings).all(1))[0])
            raise InputError(
                f"the embedding of item {self.item_ids[row]!r} in {self.source} holds a number that is not "
                f"finite."
            )
        return self


def of_checkpoint(checkpoint, files, trust, eval_tokens, new_items=None):
    """Of each item what the trained item LLM (and its item ids) make of it; as load_towers."""
    inputs, _, table, _ = load_towers(checkpoint, files, trust, eval_tokens, new_items)
    item_ids, counts = list(inputs.interactions.item_ids), inputs.split.popularity
    counts = np.pad(counts, (0, len(item_ids) - len(counts)))  # nobody took a new item
    return Items(item_ids, table, counts, f"the checkpoint {checkpoint}", {"checkpoint": str(checkpoint)})


def of_encoder(directory, data, texts, trust, eval_tokens, pooling=None):
    """Of each item what a Hugging Face encoder makes of its text; arguments as of read_encoder."""
    found = read_encoder(directory, data, texts, trust, pooling)
    table, _ = embed_texts(found.encoder, found.item_text, directory, eval_tokens, texts.cache_dir)
    embedder = {
        "encoder_model_dir": str(directory), "pooling": pooling, "text_keys": list(texts.text_keys),
        "max_text_length": texts.max_text_length,
    }  # fmt: skip
    return Items(list(found.item_ids), table.numpy(), found.interactions, found.source, embedder)


class Encoded(NamedTuple):
    """An encoder, and what it is to read."""

    encoder: TextEncoder  # on this rank's device
    item_text: item_text.ItemText
    item_ids: Sequence[str]
    interactions: np.ndarray | None
    source: str


def read_encoder(directory, data, texts, trust, pooling=None):
    """Encoded: as a sentence-transformers directory says, else the mean over a text's tokens.

    Args:
        data: DataFlags, whose items these are; without --interaction_data they are those of the texts.
        texts: TokenFlags.
        trust: whether the directory's own code may run.
        pooling: in place of that.
    """
    existing_file(texts.text_data, "--text_data")
    check_directory(directory, "--encoder_model_dir", trust, merges=True)
    item_ids, counts, mark = catalogue(data, texts)
    items = SimpleNamespace(item_ids=item_ids, fingerprint=mark)
    reads = SentenceEncoder.of(directory, "--encoder_model_dir", pooling)
    reads = reads and reads.within(texts.max_text_length, None)
    prompt = reads.prompt if reads else ""
    read = item_text.read(items, item_text.Reader(texts, directory, trust, prompt, 0, reads))
    backbone = load_backbone(directory, "--encoder_model_dir", trust=trust)
    limit = getattr(backbone.config, "max_position_embeddings", texts.max_text_length)
    if texts.max_text_length > limit:
        raise InputError(
            f"--max_text_length {texts.max_text_length} is more than the {limit} positions of the encoder."
        )
    check_vocabulary(backbone, read, directory)
    encoder = TextEncoder.of(backbone, 0, texts.max_text_length, reads, directory).to(distributed.device())
    how = f" ({reads})" if reads else ""
    return Encoded(encoder.eval(), read, item_ids, counts, f"the encoder {directory}{how}")


def catalogue(data, texts):
    """(item ids, [N] interactions or None, fingerprint): all items of the interactions, or of the texts."""
    if data.interaction_data:
        read = read_interactions(data)
        return read.item_ids, training_counts(read, data), read.fingerprint
    item_ids = item_fields.item_ids(texts)
    if not item_ids:
        raise InputError(f"--text_data {texts.text_data} holds no item.")
    return item_ids, None, fingerprint("all items of", Path(texts.text_data))


def training_counts(read, data):
    """[num_items] how often each was taken in training, as DataFlags split the Interactions."""
    return taken_in_training(read, data).counts(read.num_items)


def of_matrix(matrix, matrix_ids, data):
    """Of a file. data: DataFlags; without --interaction_data nothing is counted."""
    item_ids, table = read_ids(matrix_ids), read_matrix(matrix)
    if len(item_ids) != len(table):
        raise InputError(
            f"--matrix {matrix} has {len(table):,} rows, but --matrix_ids {matrix_ids} names "
            f"{len(item_ids):,} items. Row i must be item i."
        )
    counts = None
    if data.interaction_data:
        read = read_interactions(data)
        of_item = dict(zip(read.item_ids, training_counts(read, data).tolist(), strict=True))
        counts = np.array([of_item.get(item_id, 0) for item_id in item_ids])
        if not set(item_ids) & of_item.keys():
            raise InputError(f"--matrix_ids and --interaction_data {data.interaction_data} share no item.")
    return Items(item_ids, table, counts, f"the matrix {matrix}")


def read_matrix(path):
    """[N, D] fp32 of an .npy file, or of the only tensor of a .safetensors file."""
    path = existing_file(path, "--matrix")
    try:
        if path.suffix == ".safetensors":
            found = list(load_file(path).values())
            if len(found) != 1:
                raise InputError(f"--matrix {path} holds {len(found)} tensors; it must hold one.")
            table = found[0].float().numpy()  # numpy has no bf16
        else:
            table = np.load(path, allow_pickle=False)
            if not isinstance(table, np.ndarray):
                raise ValueError("it is an archive of several arrays")
    except (OSError, ValueError, EOFError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"--matrix {path} could not be read: {first_line(error)} It must be .npy or .safetensors."
        ) from None
    if table.ndim != 2 or not table.size or table.dtype.kind not in "fiu":
        raise InputError(
            f"--matrix {path} holds {table.dtype} of shape {table.shape}; it must hold numbers [items, "
            f"width]."
        )
    return np.ascontiguousarray(table, np.float32)


def read_ids(path):
    """Item ids, one a line as scripts/evaluate_pixelrec.py writes them, or a JSON list."""
    path = existing_file(path, "--matrix_ids")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = json.loads(text)
            if not isinstance(found, list):
                raise InputError(f"--matrix_ids {path} must hold a JSON list of item ids.")
            item_ids = [str(item_id) for item_id in found]
        else:
            lines = text.removesuffix("\n").split("\n") if text else []
            item_ids = [unescaped(line) for line in lines]
    except ValueError as error:
        raise InputError(f"--matrix_ids {path} could not be read: {first_line(error)}") from None
    if not item_ids:
        raise InputError(f"--matrix_ids {path} is empty. Row i of --matrix needs the id of its item.")
    if len(set(item_ids)) < len(item_ids):
        twice = next(item_id for item_id in item_ids if item_ids.count(item_id) > 1)
        raise InputError(f"--matrix_ids {path} names item {twice!r} twice.")
    return item_ids


def unescaped(line):
    """A line of item_ids.txt, in which a backslash stands as two and a line break as backslash and n."""
    return "\\".join(part.replace("\\n", "\n") for part in line.split("\\\\"))
