"""Semantic ids: every item as a short tuple of integers, coarse to fine, one of each level's codebook."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_file, write_whole
from pixelrec_train.semantic_id.codecs import LETTERS

VERSION = 1
ABSENT = -1  # fills up an id that is shorter than others


@dataclass(frozen=True)
class SemanticIds:
    """Row i of codes is the id of item_ids[i]; several items may share one."""

    item_ids: list[str]
    codes: np.ndarray  # [N, L] int32, from 0; ABSENT at the end of a shorter id
    codebook_sizes: tuple[int, ...]  # [L] codes a level can take
    facts: dict = field(default_factory=dict)  # how they were made

    def __post_init__(self):
        """Raises InputError where rows, levels or codes do not fit together."""
        codes, sizes = self.codes, np.array(self.codebook_sizes)
        for wrong, sentence in (
            (codes.ndim != 2 or codes.shape != (len(self.item_ids), len(sizes)),
             f"hold a table of {codes.shape} for {len(self.item_ids):,} items and {len(sizes)} levels."),
            (len(set(self.item_ids)) < len(self.item_ids), "name an item twice."),
            (codes.size and (codes[:, 0] < 0).any(), "hold an item without a code."),
            (codes.size and ((codes[:, 1:] >= 0) & (codes[:, :-1] < 0)).any(),
             "hold an id with a gap in it."),
            (codes.size and ((codes >= sizes) | (codes < ABSENT)).any(),
             f"hold a code outside of its codebook (sizes {', '.join(map(str, sizes))})."),
        ):  # fmt: skip
            if wrong:
                raise InputError(f"the semantic ids {sentence}")

    @property
    def levels(self):
        return len(self.codebook_sizes)

    def of(self, item_ids):
        """[len(item_ids), L] codes of these items, in this order.

        Raises:
            InputError: an item has none.
        """
        row = {item_id: r for r, item_id in enumerate(self.item_ids)}
        absent = [item_id for item_id in item_ids if item_id not in row]
        if absent:
            raise InputError(
                f"{len(absent):,} of {len(item_ids):,} items have no semantic id, {absent[0]!r} for one. "
                f"Build them for this catalogue: scripts/build_semantic_ids.py."
            )
        return self.codes[[row[item_id] for item_id in item_ids]]

    def save(self, path):
        """JSON with a line per item id, and one per item's codes."""
        head = {"version": VERSION, "codebook_sizes": list(self.codebook_sizes), "facts": self.facts}
        lists = {"item_ids": self.item_ids, "codes": self.codes.tolist()}
        parts = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        for key, rows in lists.items():
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
        write_whole(path, "{\n" + ",\n".join(parts) + "\n}\n")

    @staticmethod
    def load(path, flag_name="--semantic_ids"):
        """Raises InputError when the file is none of ours."""
        path = Path(existing_file(path, flag_name))
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["version"] != VERSION:
                raise ValueError(f"version {found['version']}")
            sizes = tuple(int(size) for size in found["codebook_sizes"])
            if not 1 <= len(sizes) <= len(LETTERS) or min(sizes) < 1:
                raise ValueError(f"codebook_sizes {found['codebook_sizes']}")
            codes = np.array(found["codes"]).reshape(len(found["item_ids"]), len(sizes))
            if codes.size and (codes.dtype.kind != "i" or abs(codes).max() >= 2**31):
                raise ValueError("a code is not a whole number below 2**31")
            item_ids = [str(i) for i in found["item_ids"]]
            return SemanticIds(item_ids, codes.astype(np.int32), sizes, dict(found["facts"]))
        except InputError as error:
            raise InputError(f"{flag_name} {path}: {error} Build or import it anew.") from None
        except (ValueError, KeyError, TypeError) as error:
            why = f"it has no {error}." if isinstance(error, KeyError) else first_line(error)
            raise InputError(
                f"{flag_name} {path} holds no semantic ids of this version: {why} Files of other "
                f"projects are read with scripts/build_semantic_ids.py --import_index."
            ) from None
