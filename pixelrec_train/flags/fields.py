"""A dataclass field is a flag: its name, type, default, help, and what it may be."""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train import files
from pixelrec_train.errors import InputError

REQUIRED = dataclasses.MISSING


class Rule(typing.NamedTuple):
    """What a value may be: words to go behind the flag's name, and a test."""

    words: str
    allows: Callable


def at_least(least):
    return Rule(f"must be at least {least}", lambda value: value >= least)


def one_of(*names):
    words = " or ".join(map(str, names)) if len(names) == 2 else f"one of {', '.join(map(str, names))}"
    return Rule(f"must be {words}", lambda value: value in names)


SHARE = Rule("must be in [0, 1)", lambda value: 0 <= value < 1)
POSITIVE = Rule("must be a positive number", lambda value: 0 < value < float("inf"))
NOT_NEGATIVE = Rule("must be a number that is not negative", lambda value: 0 <= value < float("inf"))
# Not so many that a clock overflows.
MINUTES = Rule("must be a number above 0, at most a million", lambda value: 0 < value <= 1e6)
SEED = Rule("must be in [0, 2**63)", lambda value: 0 <= value < 2**63)
DISTINCT = Rule("must name each only once", lambda values: len(set(values)) == len(values))
COLUMNS = Rule("needs at least one column", bool)
FILE_NAME = Rule("must be the beginning of a file's name", lambda name: name and not set(name) & set("/\\\0"))
RANKS = Rule("needs a number of ranks", lambda value: value >= 1)
FILE, DIRECTORY, NEW_FILE, NEW_DIRECTORY = "file", "directory", "new file", "new directory"
MODEL = "model"  # a directory, or a name in a hub; see hub.fetched
PLACES = {
    FILE: files.existing_file, DIRECTORY: files.existing_directory,
    NEW_FILE: files.possible_file, NEW_DIRECTORY: files.possible_directory,
}  # fmt: skip


def flag(
    help, default=REQUIRED, *rules, path=None, repeated=False, positional=False, may_differ=False, alias=(),
    without_effect=None,
):  # fmt: skip
    """A field of a class of Flags.

    Args:
        rules: what its value must obey; None, where its type has it, always may be.
        path: FILE and so on: what must be there, or can be made, when a command starts.
        repeated: may be given several times, one value each.
        positional: stands without --name in front.
        may_differ: a resumed run may have another value: it changes how fast, how often and where, and not
            what is computed.
        alias: other names of it, of other projects.
        without_effect: why it is taken and changes nothing, see `idle`.
    """
    if without_effect:
        help, may_differ = f"{help}; no effect here: {without_effect}", True
    metadata = dict(help=help, rules=rules, path=path, repeated=repeated, positional=positional, alias=alias)
    metadata |= {"may_differ": may_differ, "without_effect": without_effect}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """A group of flags, or all of a command's: those of the groups it inherits, and its own."""

    def __post_init__(self):
        """Raises InputError where a value is none of those its field allows."""
        for f in dataclasses.fields(self):
            value, may_be_none = getattr(self, f.name), type(None) in typing.get_args(f.type)
            for rule in () if may_be_none and value is None else f.metadata["rules"]:
                if may_be_none:
                    rule = rule._replace(words=rule.words.replace("must be", "must be None or"))
                refuse_unless(rule, f.name, value)

    def set(self, **values):
        """Settle fields that follow from others; for __post_init__ alone, it is frozen for everyone else."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def refuse_unless(rule, name, value):
    if not rule.allows(value):
        found = as_text(value) if isinstance(value, tuple) else value
        raise InputError(f"--{name} {rule.words}, got {found!r}.")


def given(config):
    """Names of the flags that stood on the command line."""
    return vars(config).get("_given", frozenset())


def refuse_beside_checkpoint(config, names, whose):
    """Raises InputError where one of the named flags was given beside --checkpoint; whose: the flag that they
    belong to."""
    for name in names if config.checkpoint else ():
        if name in given(config):
            raise InputError(f"--{name} is for --{whose}; a checkpoint says it itself. Leave it out.")


def idle(config):
    """Lines for the plan: what a --config file says beside the command line, and each flag that was given
    and does nothing here."""
    return [*vars(config).get("_told", ())] + [
        f"--{f.name} has no effect here: {f.metadata['without_effect']}"
        for f in dataclasses.fields(config)
        if f.name in given(config) and f.metadata["without_effect"]
    ]


def replace(config, **changes):
    """dataclasses.replace that remembers what was given."""
    new = dataclasses.replace(config, **changes)
    new.set(_given=given(config), _told=vars(config).get("_told", ()))
    return new


def part(config, group):
    """The flags of one group alone, as an instance of it."""
    return group(**{f.name: getattr(config, f.name) for f in dataclasses.fields(group)})


def check_paths(config):
    """The config, once everything is there that its flags say must be; configs/… is found from anywhere.

    Raises:
        InputError: a file or directory is missing, or stands where another must be written.
    """
    for f in dataclasses.fields(config):
        value, kind = getattr(config, f.name), f.metadata["path"]
        if kind in (None, MODEL) or value is None:
            continue
        if kind == FILE:
            value = found(value)
            config.set(**{f.name: value})
        PLACES[kind](value, f"--{f.name}")
    return config


def found(path):
    """The path of a file; of one in configs/ that is not here, the one that comes with the project."""
    shipped = files.ROOT / path
    if path.startswith("configs/") and not Path(path).exists() and shipped.is_file():
        return str(shipped)
    return path


def as_text(value):
    """A value as it would be written on the command line."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
