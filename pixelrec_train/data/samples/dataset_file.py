"""OpenOneRec's dataset JSON: every documented key read and checked. Imports nothing heavy."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelrec_train.data.samples.files import Source, sources_of, there
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_directory, existing_file, refuse_repeated_keys
from pixelrec_train.flags import Rule, one_of

ORDER = "the order of an epoch is a permutation of all its samples"
WITHOUT_EFFECT = {
    "local_shuffle_buffer_size": ORDER,
    "local_shuffle_random_fetch": ORDER,
    "num_readers": "OpenOneRec does not use it either",
    "shuffle_window": "OpenOneRec does not use it either",
    "datasource_config": "OpenOneRec does not use it either",
    "shuffle_size": "OpenOneRec does not use it for Parquet files either",
    "shuffle_initial_size": "OpenOneRec does not use it for Parquet files either",
}


def whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def is_range(value):
    pair = isinstance(value, list) and len(value) == 2 and all(whole(end, 0) for end in value)
    return pair and value[0] <= value[1]


ANYTHING = Rule("may be anything", lambda value: True)
TEXT = Rule("must be a text", lambda value: isinstance(value, str) and value.strip())
SWITCH = Rule("must be true or false", lambda value: value in (0, 1) and isinstance(value, int))
COUNT = Rule("must be a whole number above 0", lambda value: whole(value, 1))
SIZE = Rule("must be a whole number, 0 or more", lambda value: whole(value, 0))
RANGE = Rule("must be [first, last]: two token ids, the last one included", is_range)


@dataclass(frozen=True)
class DatasetFile:
    """What the JSON says; None where it says nothing, so that a flag's own default holds."""

    path: Path
    sources: list[Source]  # their files, found beside the JSON or in the current directory
    name: str | None = None
    base_model_dir: Path | None = None  # whose tokenizer reads the samples
    max_length: int | None = None  # tokens of a pack
    max_sample_length: int | None = None  # tokens; longer samples are left out
    num_epochs: int | None = None
    num_workers: int | None = None
    shuffle_seed: int | None = None
    model_class: str | None = None
    itemic_id_range: tuple[int, int] | None = None  # first and last id
    only_assistant_loss: bool | None = None
    add_think_pattern: bool | None = None
    cut_to_pad: bool | None = None
    full_attention: bool | None = None
    without_effect: tuple[str, ...] = ()  # keys of WITHOUT_EFFECT that are there

    @staticmethod
    def load(path, flag_name="--dataset_config"):
        """Raises InputError where it is no such JSON, has an unknown key or a value that is not of its kind,
        or names files that are not there."""
        path = existing_file(path, flag_name)
        found = {key: value for key, value in read(path, flag_name).items() if value is not None}
        if "sources" not in found:
            raise InputError(f"{flag_name} {path} has no key 'sources'. It names the Parquet files.")
        said: dict[str, Any] = {key: value for key, value in found.items() if key not in WITHOUT_EFFECT}
        said["sources"] = sources_of(said["sources"], f"{path}: sources", path.parent)
        if directory := said.get("base_model_dir"):
            place = there(directory, path.parent) or directory
            said["base_model_dir"] = existing_directory(place, f"{path}: base_model_dir")
        if ends := said.get("itemic_id_range"):
            said["itemic_id_range"] = tuple(ends)
        said |= {key: bool(value) for key, value in said.items() if KEYS[key] is SWITCH}
        idle = tuple(key for key in found if key in WITHOUT_EFFECT)
        return DatasetFile(path, **said, without_effect=idle)

    def remarks(self):
        """Lines for the plan: keys that are there and do nothing, once."""
        for why in dict.fromkeys(WITHOUT_EFFECT[key] for key in self.without_effect):
            keys = [key for key in self.without_effect if WITHOUT_EFFECT[key] == why]
            yield f"{self.path}: {', '.join(keys)}: no effect, as {why}"

    def refuse_other_range(self, first, last, where):
        """Raises InputError where itemic_id_range is not the one of the vocabulary.

        Args:
            where: the file that says so, itemic_meta.json.
        """
        if self.itemic_id_range not in (None, (first, last)):
            raise InputError(
                f"{self.path} sets itemic_id_range = {list(self.itemic_id_range)}, but {where} says "
                f"{[first, last]}. Leave the key out, or name the directory it belongs to."
            )


KEYS = {
    "name": one_of("chat_completion_parquet"),
    "sources": ANYTHING,  # checked by sources_of
    "base_model_dir": TEXT, "model_class": TEXT,
    "max_length": COUNT, "max_sample_length": COUNT, "num_epochs": COUNT,
    "num_workers": SIZE, "shuffle_seed": SIZE,
    "itemic_id_range": RANGE,
    "only_assistant_loss": SWITCH, "add_think_pattern": SWITCH,
    "cut_to_pad": SWITCH, "full_attention": SWITCH,
    "local_shuffle_buffer_size": SIZE,
    **dict.fromkeys(list(WITHOUT_EFFECT)[1:], ANYTHING),
}  # fmt: skip


def read(path, flag_name):
    """{key: value} of the JSON, each known and of its kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=refuse_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{flag_name} {path} is not valid JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"{flag_name} {path} must hold a JSON object, with sources and so on as its keys.")
    for key, value in found.items():
        if key not in KEYS:
            nearest = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else f"There are: {', '.join(KEYS)}."
            raise InputError(f"{flag_name} {path} has a key {key!r} that is not known. {hint}")
        if value is not None and not KEYS[key].allows(value):
            raise InputError(f"{path} sets {key} = {json.dumps(value)[:80]}; it {KEYS[key].words}.")
    return found
