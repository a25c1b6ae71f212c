"""Parts of a token store: which rows of which files make each of them, and how one is made."""

from typing import NamedTuple

import numpy as np

from pixelrec_train.data.cache import beside
from pixelrec_train.data.samples.cells import Remarks
from pixelrec_train.data.samples.rows import Problem, samples
from pixelrec_train.errors import InputError

MOST_ROWS, FEWEST_ROWS, FEWEST_SHARDS = 16_384, 1_024, 64  # few rows make small shards, so that all help
BLOCK_ROWS, BLOCK_CHARACTERS = 256, 1 << 20  # that are tokenised at once
TOKENS, ROWS, FACTS = "tokens.bin", "rows.npy", "facts.json"
LABEL = np.uint32(1 << 31)  # the top bit of a token: whether it is a label
ADVICE = "scripts/check_samples.py FILES lists everything that is wrong."


class Piece(NamedTuple):
    """Rows first … stop - 1 of a row group."""

    file: int
    group: int
    first: int
    stop: int


def plan(rows_of_files, most_rows=None):
    """[[rows of each row group] of each file] -> [shard: [Piece]]: the same for everyone who asks."""
    total = sum(map(sum, rows_of_files))
    most_rows = most_rows or min(max(total // FEWEST_SHARDS, FEWEST_ROWS), MOST_ROWS)
    shards, room = [], 0
    for file, groups in enumerate(rows_of_files):
        for group, rows in enumerate(groups):
            first = 0
            while first < rows:
                if not room:
                    shards.append([])
                    room = most_rows
                stop = min(first + room, rows)
                shards[-1].append(Piece(file, group, first, stop))
                first, room = stop, room - (stop - first)
    return shards


def rows_of(pieces):
    return sum(piece.stop - piece.first for piece in pieces)


def write_shard(directory, pieces, files, renderer, beat):
    """Tokenise the rows of a shard into a directory; in memory are BLOCK_ROWS of them at a time.

    tokens.bin: uint32, the ids of all its samples end to end, with LABEL where one is a label; rows.npy:
    [n, 3] int32, of each sample its tokens, its labels, and the number of its source in facts.json.

    Args:
        files: paths, by Piece.file.
        beat: called between blocks.

    Raises:
        InputError: a row is no sample or is refused by the chat template; names file and row.
    """
    rows, sources, remarks = [], {}, Remarks()
    with beside(directory) as (folder, facts):
        with open(folder / TOKENS, "wb") as file:
            for texts, names in blocks(pieces, files, renderer, remarks):
                for (ids, is_label), source in zip(renderer.tokens(texts), names, strict=True):
                    words = ids.astype(np.uint32)
                    words[is_label] |= LABEL
                    file.write(words.data)
                    number = sources.setdefault(source, len(sources))
                    rows.append((len(ids), int(is_label.sum()), number))
                beat()
        np.save(folder / ROWS, np.array(rows, np.int32).reshape(-1, 3))
        facts["sources"] = list(sources)
        facts["remarks"] = [[*key, *value] for key, value in remarks.items()]


def blocks(pieces, files, renderer, remarks):
    """Yields ([what renderer.text gives], [their sources]) of some rows at a time."""
    texts, names, characters = [], [], 0
    for piece in pieces:
        path = files[piece.file]
        for row, sample in samples(path, piece.group, remarks, piece.first, piece.stop):
            texts.append(text_of(sample, path, row, renderer))
            names.append(sample.source)
            characters += len(texts[-1][0])
            if len(texts) == BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
                yield texts, names
                texts, names, characters = [], [], 0
    if texts:
        yield texts, names


def text_of(sample, path, row, renderer):
    if isinstance(sample, Problem):
        raise InputError(f"{sample} {ADVICE}")
    try:
        return renderer.text(sample)
    except InputError as error:
        raise InputError(f"{path} row {row:,}, {error}") from None
