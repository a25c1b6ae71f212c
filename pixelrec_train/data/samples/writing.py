"""Samples as OpenOneRec's Parquet files: part-00000-of-00010.parquet and so on, and file_list.json.

columns: uuid, source, metadata, messages, segments; the last three are JSON texts, one of the last two null
"""

import itertools
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from pixelrec_train.files import write_json

FILE_LIST = "file_list.json"
SCHEMA = pa.schema([(name, pa.string()) for name in ("uuid", "source", "metadata", "messages", "segments")])
encode = json.JSONEncoder(ensure_ascii=False).encode


def write_samples(directory, samples, rows_per_file):
    """Write them as they come; the files get their names once their number is known.

    Args:
        directory: there, and empty.
        samples: iterator of (Sample, facts: what JSON can hold, as its metadata).

    Returns:
        names of the files, as file_list.json has them (beside them: the directory may move)
    """
    samples, written = iter(samples), 0
    while block := list(itertools.islice(samples, rows_per_file)):
        write_file(Path(directory, f"part-{written:05d}"), [block])
        written += 1
    names = [f"part-{number:05d}-of-{written:05d}.parquet" for number in range(written)]
    for name in names:
        os.replace(Path(directory, name[: len("part-00000")]), Path(directory, name))
    write_json(Path(directory, FILE_LIST), names)
    return names


def write_file(path, groups):
    """One Parquet file. groups: iterable of row groups, each a list of (Sample, its metadata)."""
    with pyarrow.parquet.ParquetWriter(path, SCHEMA, compression="snappy") as file:
        for group in groups:
            columns = zip(*map(as_row, group), strict=True) if group else [[] for _ in SCHEMA]
            arrays = [pa.array(column, pa.string()) for column in columns]
            file.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=max(1, len(group)))


def as_row(sample_and_facts):
    sample, facts = sample_and_facts
    messages = None if sample.messages is None else encode(sample.messages)
    segments = sample.segments and encode([{"type": "text", "text": text} for text in sample.segments])
    return sample.uuid, sample.source, encode(facts), messages, segments


def dataset_config(max_length, think, model_dir=None, vocabulary=None):
    """The configuration with which scripts/train_qwen3.py reads a directory of samples, to lie beside them.

    Args:
        max_length: tokens of a pack.
        think: whether questions are to end in /think or /no_think.
        vocabulary: ItemicVocabulary of model_dir, or None.
    """
    found = {
        "name": "chat_completion_parquet",
        "sources": FILE_LIST,
        "max_length": max_length,
        "only_assistant_loss": True,
        "add_think_pattern": think,
    }
    if vocabulary:
        found["base_model_dir"] = str(Path(model_dir).resolve())
        # Both inclusive, and with the words around an item.
        found["itemic_id_range"] = [vocabulary.first_new_id, vocabulary.tokenizer_length - 1]
    return found
