"""Index files of other projects: semantic ids in their spelling, read and written.

codec              file
minionerec         {item_id: ["<a_1>", "<b_2>", "<c_3>"]}, codes from 0 or from 1, perhaps with a suffix
onerec             {item_id: {"sid": "<|sid_begin|><s_a_1>…<|sid_end|>"}}, or Parquet with pid, sid = [1, …]
semantic_ids_llm   Parquet with parent_asin, semantic_id_0, semantic_id_1, … and their text semantic_id
cb                 {item_id: ["<|sid_begin|><cb_0_1><|sid_end|>", …]}, one wrapped token per level
"""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_file, whole, write_json
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS
from pixelrec_train.semantic_id.codes import ABSENT, SemanticIds

ID_COLUMNS = ("pid", "parent_asin", "item_id", "asin")
WRAPPER = re.compile(r"<\|(sid|item)_(begin|start|end)\|>")


def read_index(path, codec_name, codebook_size=None, code_base=None, flag_name="--import_index"):
    """SemanticIds of an index file.

    Args:
        codebook_size: of the levels all ids have; None = the smallest power of two that holds their codes.
        code_base: 0 or 1, the first code; None = of minionerec's files 1 where no code 0 occurs in those
            levels and the largest one is codebook_size (or a power of two), else 0.
        flag_name: by which the file was named; "" where none did.

    Raises:
        InputError: it is no such file, or holds another spelling or codes that do not fit.
    """
    path = existing_file(path, flag_name)
    said = f"{flag_name} {path}".strip()
    rows = read_parquet(path, said) if is_parquet(path) else read_json(path, CODECS[codec_name], said)
    if not rows:
        raise InputError(f"{said} holds no item.")
    lengths = {len(codes) for codes in rows.values()}
    least, most = min(lengths), max(lengths)
    if least == 0 or most > len(LETTERS):
        raise InputError(f"{said} holds an item with {most if least else 0} codes.")
    codes = np.full((len(rows), most), ABSENT, np.int64)
    for row, own in enumerate(rows.values()):
        codes[row, : len(own)] = own
    common = codes[:, :least]
    if code_base is None:
        largest = int(common.max())
        full = largest == (codebook_size or power_of_two(largest))
        code_base = int(codec_name == "minionerec" and common.min() > 0 and full)
    codes = np.where(codes >= 0, codes - code_base, ABSENT)
    if (codes[:, :least] < 0).any() or (codes < ABSENT).any():
        raise InputError(f"{said} holds a code 0, but --code_base says they begin with 1.")
    largest = int(codes[:, :least].max())
    if codebook_size and largest >= codebook_size:
        raise InputError(
            f"{said} holds code {largest}, but --codebook_size is {codebook_size}. Leave it out."
        )
    size = codebook_size or power_of_two(largest + 1)
    extra = [int(codes[:, level].max()) + 1 for level in range(least, most)]
    facts = {"imported_from": Path(path).name, "codec": codec_name, "code_base": code_base}
    return SemanticIds(list(rows), codes.astype(np.int32), (size,) * least + tuple(extra), facts)


def power_of_two(least):
    return 1 << max(least - 1, 0).bit_length()


def read_json(path, codec, said):
    """{item_id: [code, …]}"""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{said} is not valid JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"{said} must hold an object, item id -> its tokens.")
    return {item_id: read_entry(entry, codec, item_id, said) for item_id, entry in found.items()}


def read_entry(entry, codec, item_id, said):
    entry = entry.get("sid") if isinstance(entry, dict) else entry
    parts = [entry] if isinstance(entry, str) else entry if isinstance(entry, list) else []
    text = "".join(map(str, parts))
    words = re.findall(r"<[^<>]*>", WRAPPER.sub("", text))
    codes = codec.read(words) if "".join(words) == WRAPPER.sub("", text) else None
    if not codes:
        example = codec.text((1, 2, 3), (256,) * 3)
        raise InputError(
            f"{said}: item {item_id!r} has {str(entry)[:80]!r}, which is no id in the "
            f"spelling {codec.name}. One reads {example}."
        )
    if codec.is_numbered:
        raise InputError(f"{said}: the spelling {codec.name} is read from Parquet files.")
    return codes


def is_parquet(path):
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def read_parquet(path, said):
    """{item_id: [code, …]} of a file with sid = [code, …], or with semantic_id_0, semantic_id_1, …"""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{said} could not be read: {first_line(error)}") from None
    names = table.column_names
    ids = next((name for name in ID_COLUMNS if name in names), None)
    levels = [f"semantic_id_{n}" for n in range(len(names)) if f"semantic_id_{n}" in names]
    if ids is None or not ("sid" in names or levels):
        raise InputError(
            f"{said} has the columns {', '.join(names)}. It needs one of "
            f"{', '.join(ID_COLUMNS)}, and sid, or semantic_id_0, semantic_id_1 and so on."
        )
    item_ids = [written(item_id, ids, said) for item_id in table[ids].to_pylist()]
    if levels:
        rows = zip(*(table[name].to_pylist() for name in levels), strict=True)
    else:
        rows = table["sid"].to_pylist()
    rows = [list(row) if isinstance(row, list | tuple) else [None] for row in rows]
    for item_id, row in zip(item_ids, rows, strict=True):
        if any(type(code) is not int or not 0 <= code < 10**9 for code in row):
            raise InputError(
                f"{said} holds a code that is no number from 0 to a billion, of item {item_id!r}."
            )
    found = dict(zip(item_ids, rows, strict=True))
    if len(found) < len(item_ids):
        twice = next(item_id for item_id, n in Counter(item_ids).items() if n > 1)
        raise InputError(f"{said} names an item twice: {twice!r}.")
    return found


def written(item_id, column, said):
    """An item's id as tables of interactions have it; pandas makes 7.0 of a 7 where another is missing.

    Raises:
        InputError: there is none, or it is a number whose digits are lost.
    """
    if isinstance(item_id, float) and item_id.is_integer() and abs(item_id) <= 2**53:
        return str(int(item_id))
    if not isinstance(item_id, int | str) or item_id == "":
        raise InputError(f"{said} has {item_id!r} in the column {column}; it must be an item's id.")
    return str(item_id)


def write_index(ids, path, codec_name, code_base=0):
    """Write SemanticIds as read_index reads them, whole or not at all; the ending .parquet chooses Parquet.

    Raises:
        InputError: there is no such file for this spelling.
    """
    path, codec, sizes = Path(path), CODECS[codec_name], ids.codebook_sizes
    check_index(path, codec_name, code_base)
    if path.suffix == ".parquet":
        return write_parquet(ids, path, codec)
    shifted = np.where(ids.codes == ABSENT, ABSENT, ids.codes + code_base)
    if codec_name == "onerec":
        entries = [{"sid": codec.text(row, sizes)} for row in shifted]
    else:
        entries = [codec.words(row, sizes) for row in shifted]
    if codec_name == "cb":
        entries = [[f"<|sid_begin|>{word}<|sid_end|>" for word in words] for words in entries]
    write_json(path, dict(zip(ids.item_ids, entries, strict=True)))


def check_index(path, codec_name, code_base):
    """Raises InputError where write_index would."""
    parquet = Path(path).suffix == ".parquet"
    kinds = {"onerec": (True, False), "semantic_ids_llm": (True,)}.get(codec_name, (False,))
    if parquet not in kinds:
        raise InputError(
            f"--export_index {path}: the spelling {codec_name} is kept in a "
            f"{'JSON' if parquet else 'Parquet'} file. Choose the ending accordingly."
        )
    if code_base and codec_name != "minionerec":
        raise InputError(f"--code_base 1 is a matter of minionerec's files, but --codec is {codec_name}.")


def write_parquet(ids, path, codec):
    import pyarrow
    import pyarrow.parquet

    if codec.name == "onerec":
        numbers = all(re.fullmatch("0|[1-9][0-9]{0,17}", item_id) for item_id in ids.item_ids)
        columns = {
            "pid": [int(item_id) for item_id in ids.item_ids] if numbers else ids.item_ids,
            "sid": [[int(code) for code in row if code != ABSENT] for row in ids.codes],
        }
    elif (ids.codes == ABSENT).any():
        raise InputError(f"--export_index {path}: the spelling {codec.name} has no ids of different lengths.")
    else:
        columns = {"parent_asin": ids.item_ids}
        columns |= {f"semantic_id_{level}": ids.codes[:, level] for level in range(ids.levels)}
        columns["semantic_id"] = [codec.text(row, ids.codebook_sizes) for row in ids.codes]
    with whole(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table(columns), partial)
