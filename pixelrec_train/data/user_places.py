"""places.parquet: where each held-out user's target stood in the list of each model, one row a user.

Columns: user_id, target (an item's id), history (items that the user took before), taken (how often the
target was taken in training), cold (whether no training window holds it), and place_MODEL of each row of the
table: 0 = first, -1 = not among the first max(topk). How they were judged stands in the file's metadata.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pixelrec_train.data.table_files import DAMAGES, damaged
from pixelrec_train.errors import InputError
from pixelrec_train.files import whole

FILE = "places.parquet"
PLACE, ABSENT = "place_", -1
KEY = b"pixelrec_train"  # of the metadata
COLUMNS = {
    "user_id": pa.string(), "target": pa.string(), "history": pa.int64(), "taken": pa.int64(),
    "cold": pa.bool_(),
}  # fmt: skip


class UserPlaces(NamedTuple):
    user_id: np.ndarray  # [E] of str
    target: np.ndarray  # [E] of str
    history: np.ndarray  # [E]
    taken: np.ndarray  # [E]
    cold: np.ndarray  # [E] bool
    places: dict[str, np.ndarray]  # {model: [E]}; max(topk) = absent, as evaluation has it
    model: str  # the run's own among them
    split: str  # valid or test
    origin: str  # how it was made, in words
    items: int  # of the catalogue
    topk: list[int]
    keep_seen: bool  # whether items of the own history competed

    @property
    def facts(self):
        return {name: getattr(self, name) for name in FACTS}


FACTS = UserPlaces._fields[-6:]


def write_places(directory, found):
    """places.parquet of UserPlaces, whole or not at all."""
    path, absent = Path(directory) / FILE, max(found.topk)
    columns = {name: pa.array(getattr(found, name), kind) for name, kind in COLUMNS.items()}
    for model, places in found.places.items():
        columns[PLACE + model] = pa.array(np.where(places >= absent, ABSENT, places).astype(np.int32))
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(found.facts).encode()})
    with whole(path) as partial:
        pyarrow.parquet.write_table(table, partial, compression="zstd")


def read_places(path):
    """UserPlaces of a file.

    Raises:
        InputError: it is damaged, or of another program.
    """
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        facts = json.loads((table.schema.metadata or {})[KEY])
        columns = {name: array(table[name].cast(kind)) for name, kind in COLUMNS.items()}
        absent = max(facts["topk"])
        places = {
            name.removeprefix(PLACE): array(table[name]) for name in table.column_names if PLACE in name[:6]
        }
        places = {name: np.where(x < 0, absent, x).astype(np.int64) for name, x in places.items()}
        found = UserPlaces(**columns, places=places, **{name: facts[name] for name in FACTS})
        _ = found.places[found.model]
    except DAMAGES as error:
        raise damaged(path, error) from None
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{path} was not written by a run of this version. Make it again.") from None
    return found


def array(column):
    """[E] of a column without gaps."""
    if column.null_count:
        raise ValueError("a cell is empty")
    return np.asarray(column.to_numpy(zero_copy_only=False))
