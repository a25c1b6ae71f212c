"""A dataclass field is a command-line flag: its name, type, default and help; read from text, or refused."""

import argparse
import dataclasses
import difflib
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
        return plain(text)

    read.__name__ = f"comma-separated {plain.__name__}" if is_tuple else plain.__name__
    return read


def as_text(value):
    """A value as it would be written on the command line."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def existing_file(path, flag_name):
    """The path, or an InputError that says where it was looked for and what stands there instead."""
    path = Path(path)
    if path.is_file():
        return path
    nearby = sorted(path.parent.glob("*")) if path.parent.is_dir() else []
    match = difflib.get_close_matches(path.name, [p.name for p in nearby], n=1, cutoff=0.5)
    hint = f" {path.parent / match[0]} does: did you mean that?" if match else ""
    raise InputError(f"{flag_name} {path} does not exist (looked from {Path.cwd()}).{hint}")
