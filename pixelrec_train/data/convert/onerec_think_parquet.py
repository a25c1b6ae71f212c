"""The Parquet files of the OneRec-Think fork's steps: items, sequences, conversations. Its own names of them.

NAME_items_onerec.parquet                what `onerec_think.read` takes of the items, ids as semantic_ids_llm
NAME_sequences_{train,val,test}.parquet  a user a row: all but the last two items, with the next as target;
                                         all but the last, likewise; all, without a target
NAME_conversations_train_onerec.parquet  chats: conversations, type

Source: ZLHe0/OneRec-Think, src/prep_onerec_data.py and src/generate_training_data_onerec.py.
"""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from pixelrec_train.data.convert.onerec_think import FEWEST
from pixelrec_train.errors import InputError
from pixelrec_train.files import whole
from pixelrec_train.semantic_id.codecs import CODECS

LATER = {"train": 2, "val": 1, "test": 0}  # items of a user that a split does not read
SEQUENCE = pa.schema(
    [
        ("user_id", pa.string()),
        ("sequence", pa.list_(pa.string())),
        ("semantic_id_sequence", pa.list_(pa.string())),
        ("sequence_length", pa.int64()),
        ("target_sid", pa.string()),
    ]
)
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
CONVERSATION = pa.schema([("conversations", pa.list_(MESSAGE)), ("type", pa.string())])
ROWS = 10_000  # of a row group of conversations


def write_their_files(directory, name, tables):
    """Write items and sequences of Tables; returns the files' names."""
    codec, ids = CODECS["semantic_ids_llm"], tables.ids
    spelled = {
        item_id: codec.text(row, ids.codebook_sizes)
        for item_id, row in zip(ids.item_ids, ids.codes.tolist(), strict=True)
    }
    files = {f"{name}_items_onerec.parquet": items(tables, spelled)}
    for part, later in LATER.items():
        rows = [row for row in sequences(tables.histories, spelled, later)]
        files[f"{name}_sequences_{part}.parquet"] = pa.Table.from_pylist(rows, SEQUENCE)
    for file, table in files.items():
        pyarrow.parquet.write_table(table, Path(directory, file))
    return list(files)


def items(tables, spelled):
    """A pyarrow Table, a row each item with a sound id."""
    item_ids, titles, categories, descriptions = map(list, zip(*tables.items, strict=True))
    texts = zip(titles, descriptions, categories, strict=True)
    columns = {
        "parent_asin": item_ids, "title": titles, "description_text": descriptions,
        "categories_text": categories, "item_context": [" | ".join(own) for own in texts],
    }  # fmt: skip
    codes = tables.ids.codes.astype("int64")
    columns |= {f"semantic_id_{level}": codes[:, level] for level in range(tables.ids.levels)}
    columns["semantic_id"] = [spelled[item_id] for item_id in item_ids]
    return pa.table(columns)


def sequences(histories, spelled, later):
    """Yields a row of every user with FEWEST items or more: all items but `later` of them, and the next."""
    for user_id, history in histories.items():
        if len(history) < FEWEST:
            continue
        read = history[: len(history) - later]
        yield {
            "user_id": user_id,
            "sequence": read,
            "semantic_id_sequence": [spelled[item_id] for item_id in read],
            "sequence_length": len(read),
            # As theirs, whose training target is the last item but one, behind the items that are read.
            "target_sid": spelled[history[-later]] if later else None,
        }


def write_conversations(path, samples):
    """Write chats as they come, whole or not at all; data/samples/rows.py reads such a file.

    Args:
        samples: iterator of (Sample, facts), as data/samples/writing.py takes it; the facts have no place.

    Raises:
        InputError: a sample is a document.
    """
    rows = map(as_row, samples)
    with whole(path) as partial, pyarrow.parquet.ParquetWriter(partial, CONVERSATION) as writer:
        while block := list(itertools.islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(block, CONVERSATION))


def as_row(sample_and_facts):
    sample, _ = sample_and_facts
    if sample.messages is None:
        raise InputError(
            f"the column conversations holds chats, but {sample.source} makes documents. Leave it out, or "
            f"write it in OpenOneRec's format."
        )
    return {"conversations": list(sample.messages), "type": sample.source}
