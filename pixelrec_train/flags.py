"""A dataclass field is a command-line flag: its name, type, default, help, and what it may be."""

import argparse
import dataclasses
import difflib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train import files
from pixelrec_train.errors import InputError

REQUIRED = dataclasses.MISSING
ROOT = Path(__file__).resolve().parents[1]


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
RANKS = Rule("needs a number of ranks", lambda value: value >= 1)
FILE, DIRECTORY, NEW_FILE, NEW_DIRECTORY = "file", "directory", "new file", "new directory"
PLACES = {
    FILE: files.existing_file, DIRECTORY: files.existing_directory,
    NEW_FILE: files.possible_file, NEW_DIRECTORY: files.possible_directory,
}  # fmt: skip


def flag(help, default=REQUIRED, *rules, path=None, repeated=False, positional=False, may_differ=False):
    """A field of a class of Flags.

    Args:
        rules: what its value must obey; None, where it is the default, always may be.
        path: FILE and so on: what must be there, or can be made, when a command starts.
        repeated: may be given several times, one value each.
        positional: stands without --name in front.
        may_differ: a resumed run may have another value: it changes how fast, how often and where, and not
            what is computed.
    """
    metadata = dict(help=help, rules=rules, path=path, repeated=repeated, positional=positional)
    return dataclasses.field(default=default, metadata=metadata | {"may_differ": may_differ})


@dataclass(frozen=True, kw_only=True)
class Flags:
    """A group of flags, or all of a command's: those of the groups it inherits, and its own."""

    def __post_init__(self):
        """Raises InputError where a value is none of those its field allows."""
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            for rule in () if f.default is None and value is None else f.metadata["rules"]:
                if f.default is None:
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


def replace(config, **changes):
    """dataclasses.replace that remembers what was given."""
    new = dataclasses.replace(config, **changes)
    new.set(_given=given(config))
    return new


def part(config, group):
    """The flags of one group alone, as an instance of it."""
    return group(**{f.name: getattr(config, f.name) for f in dataclasses.fields(group)})


def parse_args(config_class, argv=None):
    """Read flags into a config; a wrong one is an InputError that names the nearest right one."""
    parser = Parser(description=config_class.__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    hints, fields = typing.get_type_hints(config_class), fields_of(config_class)
    for f in fields:
        shown = "required" if f.default is REQUIRED else f"default: {as_text(f.default) or repr('')}"
        kind = {"type": reader(hints[f.name])}
        if f.metadata["repeated"]:
            kind = {"type": str, "action": "append"}
        elif hints[f.name] is bool:
            kind["nargs"], kind["const"] = "?", True
        if f.metadata["positional"]:
            kind["nargs"] = "?"
        name = f.name if f.metadata["positional"] else f"--{f.name}"
        text = f"{f.metadata['help']} ({shown})".replace("%", "%%")
        parser.add_argument(name, help=text, metavar=f.name.upper(), **kind)
    # "Intermixed": what stands without --name may stand anywhere between the flags.
    known, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        name = unknown[0].split("=")[0].removeprefix("--")
        nearest = difflib.get_close_matches(name, [f.name for f in fields], n=1)
        hint = f"Did you mean --{nearest[0]}?" if nearest else "See --help for all flags."
        raise InputError(f"unknown argument {unknown[0]!r}. {hint}")
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(known).items()}
    missing = [
        f.name if f.metadata["positional"] else f"--{f.name}"
        for f in fields
        if f.default is REQUIRED and f.name not in values
    ]
    if missing:
        raise InputError(
            f"the following arguments are required: {', '.join(missing)}. See --help for all flags."
        )
    config = config_class(**values)
    config.set(_given=frozenset(values))
    return config


def check_paths(config):
    """The config, once everything is there that its flags say must be; configs/… is found from anywhere.

    Raises:
        InputError: a file or directory is missing, or stands where another must be written.
    """
    for f in dataclasses.fields(config):
        value, kind = getattr(config, f.name), f.metadata["path"]
        if kind is None or value is None:
            continue
        shipped = ROOT / value
        if kind == FILE and value.startswith("configs/") and not Path(value).exists() and shipped.is_file():
            config.set(**{f.name: str(shipped)})
        else:
            PLACES[kind](value, f"--{f.name}")
    return config


def fields_of(config_class):
    """Its dataclass fields; its own first, then those it shares with other commands."""
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    order = [name for cls in config_class.__mro__ for name in vars(cls).get("__annotations__", ())]
    return [fields[name] for name in dict.fromkeys(order)]


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message}. See --help for all flags.")


def reader(hint):
    """How a flag of this type is read from text: "True"/"False", "None", "a,b", or the plain type."""
    options = [t for t in typing.get_args(hint) if t not in (type(None), Ellipsis)] or [hint]
    plain = options[0]
    is_tuple = typing.get_origin(hint) is tuple
    words = {"true": True, "false": False} if plain is bool else {}
    words |= {"none": None} if type(None) in typing.get_args(hint) else {}

    def read(text):
        if is_tuple and text.lower() == "none":
            return ()
        if is_tuple:
            return tuple(plain(part.strip()) for part in text.split(",") if part.strip())
        if text.lower() in words:
            return words[text.lower()]
        if plain is bool:
            raise ValueError(text)
        value = plain(text)
        if plain is int and abs(value) >= 2**63:  # numpy and torch could not hold it
            raise ValueError(text)
        return value

    read.__name__ = f"comma-separated {plain.__name__}" if is_tuple else plain.__name__
    return read


def as_text(value):
    """A value as it would be written on the command line."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
