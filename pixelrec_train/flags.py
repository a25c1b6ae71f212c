"""A dataclass field is a command-line flag: its name, type, default and help; read from text, or refused."""

import argparse
import dataclasses
import difflib
import os
import typing
from pathlib import Path

from pixelrec_train.errors import InputError


def flag(help, default=dataclasses.MISSING, repeated=False, positional=False):
    """repeated: may be given several times, one value each. positional: stands without --name in front."""
    metadata = {"help": help, "repeated": repeated, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(config_class, name):
    """The flag of another command, with its help and its default."""
    f = config_class.__dataclass_fields__[name]
    return flag(f.metadata["help"], f.default, f.metadata["repeated"])


def require(condition, expectation, found):
    if not condition:
        raise InputError(f"{expectation}, got {found!r}.")


def require_distinct(values, flag_name):
    require(len(set(values)) == len(values), f"{flag_name} must name each only once", values)


def require_minutes(value, flag_name):
    """Some, and not so many that a clock overflows."""
    require(0 < value <= 1e6, f"{flag_name} must be a number above 0, at most a million", value)


def parse_args(config_class, argv=None):
    """Read flags into a config; a wrong one is an InputError that names the nearest right one."""
    parser = Parser(description=config_class.__doc__, allow_abbrev=False)
    hints = typing.get_type_hints(config_class)
    for f in fields_of(config_class):
        required = f.default is dataclasses.MISSING
        shown = "required" if required else f"default: {as_text(f.default)!r}" if f.default == "" else (
            f"default: {as_text(f.default)}")  # fmt: skip
        kind = {"type": reader(hints[f.name]), "default": None if required else f.default}
        if f.metadata["repeated"]:
            kind = {"type": str, "action": "append", "default": list(f.default)}
        elif hints[f.name] is bool:
            kind |= {"nargs": "?", "const": True}
        if f.metadata["positional"]:
            kind["nargs"] = None if required else "?"
        else:
            kind["required"] = required
        parser.add_argument(
            f.name if f.metadata["positional"] else f"--{f.name}",
            help=f"{f.metadata['help']} ({shown})".replace("%", "%%"),
            metavar=f.name.upper(),
            **kind,
        )
    # "Intermixed": what stands without --name may stand anywhere between the flags.
    known, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        name = unknown[0].split("=")[0].removeprefix("--")
        nearest = difflib.get_close_matches(name, [f.name for f in dataclasses.fields(config_class)], n=1)
        hint = f"Did you mean --{nearest[0]}?" if nearest else "See --help for all flags."
        raise InputError(f"unknown argument {unknown[0]!r}. {hint}")
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in vars(known).items()})


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


def existing_file(path, flag_name):
    """The path, or an InputError that says where it was looked for and what stands there instead."""
    path = Path(path)
    if os.path.isfile(path):  # unlike Path's, it says no where a name is too long for the system
        return path
    if os.path.isdir(path):
        raise InputError(f"{flag_name} {path} is a directory (looked from {Path.cwd()}); it must be a file.")
    raise missing(path, flag_name)


def existing_directory(path, flag_name):
    """The same for a directory."""
    path = Path(path)
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        raise InputError(f"{flag_name} {path} is a file (looked from {Path.cwd()}); it must be a directory.")
    raise missing(path, flag_name)


def possible_directory(path, flag_name):
    """The path of a directory that is there or can be made, or an InputError that says what is in its way."""
    path = Path(path)
    there = next(p for p in (path, *path.parents, Path()) if os.path.lexists(p))
    if not there.is_dir():
        raise InputError(f"{flag_name} {path} must be a directory, but {there} is a file. Choose another.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{flag_name} {path} cannot be written: {there} does not allow it. Choose another.")
    return path


def possible_file(path, flag_name):
    """The same for a file that is going to be written."""
    possible_directory(Path(path).parent, flag_name)
    if os.path.isdir(path):
        raise InputError(f"{flag_name} {path} is a directory; it must be a file to write. Choose another.")
    return Path(path)


def missing(path, flag_name):
    nearby = sorted(path.parent.glob("*")) if os.path.isdir(path.parent) else []
    match = difflib.get_close_matches(path.name, [p.name for p in nearby], n=1, cutoff=0.5)
    hint = f" {path.parent / match[0]} does: did you mean that?" if match else ""
    return InputError(f"{flag_name} {path} does not exist (looked from {Path.cwd()}).{hint}")
