"""blend.json: of which parts a blend is, with which weights, on which data they were chosen.

{"format": 1,
 "parts": [{"name": "tfidf", "weight": 0.7}, {"checkpoint": "../text_ids/best_model", "weight": 1.0}],
 "hybrid": false, "scaling": "standard scores …", "keep_seen": false,
 "validation": {"recall@10": …, "ndcg@10": …, "users": …},
 "data": {"interaction_data": "../data/interactions.csv", …}, "fingerprint": …, "split": …, "commit": …}

Paths are relative to the directory of the file, so that a folder with both may be moved.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blend import SCALING
from pixelrec_train.files import write_json

NAME, FORMAT = "blend.json", 1
FILES = ("interaction_data", "valid_data", "test_data", "split_data", "text_data")
TOLD = {f.name for group in (DataFlags, TextFlags) for f in fields(group)} - {"cache_dir"}


@dataclass(frozen=True)
class BlendFile:
    parts: dict  # {name, or path of a checkpoint from here: weight}
    hybrid: bool  # whether the first part retrieves
    keep_seen: bool
    validation: dict  # {"recall@10": …, "ndcg@10": …, "users": …}
    data: dict  # {name of a flag of DataFlags or TextFlags: value}, paths from here
    fingerprint: str  # of the interactions

    def in_words(self):
        """0.7 tfidf + 1 results/text_ids/best_model"""
        return " + ".join(f"{weight:g} {name}" for name, weight in self.parts.items())


def blend_file(path):
    """The path of the blend.json that is meant by it, or by its directory; None where there is none."""
    path = Path(path)
    if path.is_dir():
        path = path / NAME
    return path if path.suffix == ".json" and path.is_file() else None


def write_blend(directory, blend, named, **facts):
    """Write <directory>/blend.json.

    Args:
        named: names of parts that are no paths.
        facts: what else to write down.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)

    def relative(path):
        return Path(os.path.relpath(path, directory)).as_posix()

    parts = [
        {"name": name, "weight": weight}
        if name in named
        else {"checkpoint": relative(name), "weight": weight}
        for name, weight in blend.parts.items()
    ]
    data = {name: value for name, value in blend.data.items() if name in TOLD and value not in (None, ())}
    data |= {name: relative(data[name]) for name in FILES if name in data}
    write_json(
        directory / NAME,
        {"format": FORMAT, "parts": parts, "hybrid": blend.hybrid, "scaling": SCALING,
         "keep_seen": blend.keep_seen, "validation": blend.validation, "data": data,
         "fingerprint": blend.fingerprint} | facts,
    )  # fmt: skip


def read_blend(path, flag_name):
    """BlendFile of a blend.json.

    Raises:
        InputError: it is none, or of another version.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        # Kept as it was written, not resolved: what a person reads is the path from where the command runs.
        here = Path(path).parent
        parts = {
            part.get("name") or os.path.normpath(here / part["checkpoint"]): part["weight"]
            for part in found["parts"]
        }
        data = {k: tuple(v) if isinstance(v, list) else v for k, v in found["data"].items() if k in TOLD}
        data |= {k: os.path.normpath(here / data[k]) for k in FILES if data.get(k)}
        blend = BlendFile(
            parts, found["hybrid"], found["keep_seen"], found["validation"], data, found["fingerprint"]
        )
        weights = [weight for weight in parts.values() if type(weight) in (int, float) and 0 <= weight < 1e9]
        of_here = (found["format"], found["scaling"]) == (FORMAT, SCALING)
        whole = len(found["parts"]) == len(parts) == len(weights) and any(weights)
        if not (of_here and whole and {type(blend.keep_seen), type(blend.hybrid)} == {bool}):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{flag_name} {path} is no blend.json of this version, with parts and their weights. Make it "
            f"anew: --checkpoint A+B of scripts/compare.py or scripts/evaluate_pixelrec.py."
        ) from None
    return blend
