"""Models by name: ORG/NAME[@revision] of Hugging Face's hub, or of ModelScope's, as directories here.

Only weights in safetensors, JSON and tokenizer files are taken: nothing that could run code.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import NamedTuple

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_directory
from pixelrec_train.flags import MODEL, replace
from pixelrec_train.libraries import import_hub
from pixelrec_train.run import watchdog

WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
UNWANTED = ["onnx/*", "openvino/*", "original/*"]  # the same weights once more
FORM = re.compile(r"(?:(hf|modelscope):)?([\w][\w.-]*(?:/[\w][\w.-]*)?)(?:@([\w][\w./-]*))?")


class Named(NamedTuple):
    """A model as a flag names it."""

    host: str  # hf or modelscope
    name: str
    revision: str | None


def named(text):
    """Named, or None where it can only be a directory: it is there, or the first part of it is."""
    match = None if os.path.isdir(text) else FORM.fullmatch(text)
    if match is None:
        return None
    host, name, revision = match.groups()
    if host is None and ("/" not in name or os.path.lexists(name.split("/")[0])):
        return None
    return Named(host or "hf", name, revision)


def fetched(config):
    """The config with directories in place of names, and what was taken, see `taken`.

    Under training's process group one rank of each machine downloads; before it, whoever comes first.

    Raises:
        InputError: there is no such directory, and no hub gives a model of this name.
    """
    from pixelrec_train import distributed  # brings torch, which --help and a mistyped flag do not wait for

    changes, found = {}, {}
    with distributed.first_on_each_machine():
        for f in dataclasses.fields(config):
            value = getattr(config, f.name)
            if f.metadata["path"] == MODEL and value:
                several = isinstance(value, tuple)
                pairs = [directory_of(x, f"--{f.name}", several) for x in (value if several else (value,))]
                changes[f.name] = tuple(path for path, _ in pairs) if several else pairs[0][0]
                found |= {f.name: ", ".join(what for _, what in pairs if what)}
    if any(found.values()):
        config = replace(config, **changes)
        config.set(_hub={flag: what for flag, what in found.items() if what})
    return config


@watchdog.busy("fetching a model")
def directory_of(text, flag_name, in_table=False):
    """(the directory, "ORG/NAME@commit" or None where it was one before).

    in_table: it is written, or may be written, as NAME=DIRECTORY; a model of a hub is then called as there.
    """
    label, _, bare = text.partition("=") if in_table and "=" in text else ("", "", text)
    wanted = None if os.path.isdir(text) else named(bare)
    if wanted is None:
        if not os.path.isdir(text):
            check_there(bare, flag_name)
        return text, None
    directory, commit = download(wanted, bare, flag_name)
    label = label or wanted.name.split("/")[-1]
    return (f"{label}={directory}" if in_table else directory), f"{wanted.name}@{commit}"


def check_there(text, flag_name):
    """Raises InputError where there is no such directory."""
    try:
        existing_directory(text, flag_name)
    except InputError as error:
        raise InputError(
            f"{error} A model of a hub: ORG/NAME[@revision], hf:NAME or modelscope:NAME."
        ) from None


def download(wanted, text, flag_name):
    """(directory, commit) of a model; what lies in the hub's cache already is not loaded again.

    The commit of ModelScope's is not known: the revision that was asked for stands in its place.
    """
    package = import_hub("modelscope" if wanted.host == "modelscope" else "huggingface_hub", text, flag_name)
    asked = {"revision": wanted.revision} if wanted.revision else {}
    if wanted.host == "hf":
        asked["endpoint"] = os.environ.get("HF_ENDPOINT") or None
    try:
        directory = package.snapshot_download(
            wanted.name, allow_patterns=WANTED, ignore_patterns=UNWANTED, **asked
        )
    except Exception as error:  # of the network, the hub, or the disk
        raise InputError(
            f"{flag_name} {text} does not exist (looked from {Path.cwd()}), and {package.__name__} does not "
            f"get it: {first_line(error)} Is the name right? Name a mirror in HF_ENDPOINT, or copy the model "
            f"to this machine and give its directory."
        ) from None
    if not any(Path(directory).rglob("*.safetensors")):
        raise InputError(
            f"{flag_name} {text}: the repository holds no weights in safetensors, and others (.bin, .pt) are "
            f"not loaded, as they can run code. Ask for a revision that has them, or convert it elsewhere."
        )
    is_commit = re.fullmatch(r"[0-9a-f]{40}", Path(directory).name)
    return str(directory), Path(directory).name if is_commit else wanted.revision or "master"


def taken(config):
    """{flag: "ORG/NAME@commit"} of a config that `fetched` has seen."""
    return vars(config).get("_hub", {})


def described(config):
    """Lines for the plan."""
    return [f"{flag}: {what} of the hub, in {getattr(config, flag)}" for flag, what in taken(config).items()]
