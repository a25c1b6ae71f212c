"""The command line becomes a class of Flags; what is wrong with it is named, with the nearest right name."""

import argparse
import dataclasses
import difflib
import re
import typing

from pixelrec_train.errors import InputError
from pixelrec_train.flags.fields import REQUIRED, as_text
from pixelrec_train.flags.yaml_file import ALGORITHMS, entries_of, flag_of, is_for

CONFIG = "config"
FILE_HELP = (
    "YAML file of flags, by name or in sections (docs/text.md); what stands on the command line wins "
    "(default: None)"
)


def parse_args(config_class, argv=None):
    """Read flags into a config; a wrong one is an InputError that names the nearest right one."""
    parser, fields = parser_of(config_class)
    values = read(parser, fields, argv)
    path, told = values.pop(CONFIG, None), []
    if path is not None:
        algorithms = getattr(config_class, "algorithms", ALGORITHMS)
        values, told = beneath(values, path, parser, fields, algorithms)
    missing = [names_of(f)[0] for f in fields if f.default is REQUIRED and f.name not in values]
    if missing:
        raise InputError(
            f"the following arguments are required: {', '.join(missing)}. See --help for all flags."
        )
    spelled = values.pop(SPELLED, {})
    try:
        config = config_class(**values)
    except InputError as error:
        raise InputError(as_spelled(str(error), spelled)) from None
    config.set(_given=frozenset(values), _told=tuple(told))
    return config


def beneath(values, path, parser, fields, algorithms):
    """({flag: value} of the command line over those of a file, lines for the plan about who won).

    algorithms: of ALGORITHMS, whose sections are for this command; others are left out.
    """
    known = {name.removeprefix("--"): f.name for f in fields for name in names_of(f) if name[:2] == "--"}
    repeated = {f.name for f in fields if f.metadata["repeated"]}
    lines, argv, found = {}, [], {}
    entries = [entry for entry in entries_of(path) if is_for(entry, algorithms)]
    for entry in entries:
        name = flag_of(entry, known, path)
        texts = entry.texts if known[name] in repeated else [",".join(entry.texts)]
        words = [f"--{name}={text}" for text in texts]
        try:
            argv += words
            found = read(parser, fields, argv)  # as far as here, so that what is wrong names its line
        except InputError as error:
            raise InputError(f"--config {path} line {entry.line}: {error}") from None
        lines[known[name]] = entry
    both = [name for name in found if name in values and name in lines and found[name] != values[name]]
    told = [f"config: {path}, {len(lines)} flags"] + [
        f"config: {lines[name].key} of line {lines[name].line} is {as_text(found[name])}, but the command "
        f"line says {as_text(values[name])}, which wins"
        for name in both
    ]
    spelled = {n: by for n, by in found.pop(SPELLED, {}).items() if n not in values} | values.get(SPELLED, {})
    return found | values | {SPELLED: spelled}, told


def parser_of(config_class):
    """(Parser, its fields)"""
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
            kind = {"type": str, "nargs": "*"} if f.metadata["repeated"] else kind | {"nargs": "?"}
        if len(names := names_of(f)) > 1:
            kind |= {"dest": f.name, "action": OneOfItsNames}
        text = f"{f.metadata['help']} ({shown})".replace("%", "%%")
        parser.add_argument(*names, help=text, metavar=f.name.upper(), **kind)
    parser.add_argument(f"--{CONFIG}", help=FILE_HELP, metavar="FILE.yaml", type=str)
    return parser, fields


def read(parser, fields, argv):
    """{flag: value} of a command line."""
    # "Intermixed": what stands without --name may stand anywhere between the flags.
    known, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        name = unknown[0].split("=")[0].removeprefix("--")
        known_names = [CONFIG, *(known.removeprefix("--") for f in fields for known in names_of(f))]
        nearest = difflib.get_close_matches(name, known_names, n=1)
        hint = f"Did you mean --{nearest[0]}?" if nearest else "See --help for all flags."
        raise InputError(f"unknown argument {unknown[0]!r}. {hint}")
    return {name: tuple(v) if isinstance(v, list) else v for name, v in vars(known).items()}


def names_of(field):
    """As they stand on the command line: its own, then those of other projects."""
    if field.metadata["positional"]:
        return [field.name]
    return [f"--{name}" for name in (field.name, *field.metadata["alias"])]


SPELLED = "_spelled"  # {flag: {the name it was given by: value}}, where it has several


class OneOfItsNames(argparse.Action):
    """Stores the value of a flag that has several names; the last where one is given twice."""

    def __call__(self, parser, namespace, value, option):
        spelled = vars(namespace).setdefault(SPELLED, {}).setdefault(self.dest, {})
        spelled[option] = value
        setattr(namespace, self.dest, value)
        for other, says in spelled.items():
            if says != value:
                raise InputError(
                    f"{other} {as_text(says)} and {option} {as_text(value)} are two names of one flag with "
                    f"two values. Give one of them."
                )


def as_spelled(text, spelled):
    """A message about flags by the names that stood on the command line."""
    for name, found in spelled.items():
        text = re.sub(rf"--{name}\b", next(iter(found)), text)
    return text


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
