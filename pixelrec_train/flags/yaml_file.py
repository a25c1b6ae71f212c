"""--config FILE.yaml: flags from a file, by their own names or other projects'; the command line wins.

A key is a flag's name, alone or in one of SECTIONS: `peft: {lora_r: 8}` is --lora_r 8.
"""

import difflib
from typing import NamedTuple

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_file
from pixelrec_train.flags.fields import found

ALGORITHMS = ("dpo", "grpo", "ppo")  # one file may have a section for each of several commands
SECTIONS = ("data", "model", "peft", "training_args", "trace", *ALGORITHMS)
SECRETS = ("api_key", "token", "password", "secret", "hub_token", "push_to_hub_token")


class Entry(NamedTuple):
    """A key of the file that sets a flag."""

    line: int  # from 1
    key: str  # with its section, as "peft.lora_r"
    texts: list[str]  # as they would stand on the command line; a list's one by one


def entries_of(path):
    """The entries of a YAML file, in its order.

    Raises:
        InputError: it is not there, no YAML, no mapping, has a key twice, or holds a secret.
    """
    import yaml

    path = existing_file(found(path), "--config")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} is no YAML: {first_line(error).rstrip('.')}.") from None
    if root is None:
        return []
    return list(flattened(path, root, ()))


def flattened(path, node, section):
    """Entries of a mapping's node, those of sections within it among them."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            f"--config {at(path, node)}: there must be keys and values, as `learning_rate: 1e-4`."
        )
    seen = set()
    for key_node, value in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or key in seen:
            raise InputError(f"--config {at(path, key_node)}: the key {key!r} stands there twice.")
        seen.add(key)
        name = ".".join((*section, key))
        if key.lower() in SECRETS and value.value:
            raise InputError(
                f"--config {at(path, key_node)}: {name} is a secret, and files are copied and shared. Take "
                f"it out, and set it in the environment or by the tool's own login."
            )
        if isinstance(value, yaml.MappingNode):
            if section or key not in SECTIONS:
                raise InputError(
                    f"--config {at(path, key_node)}: {name} is no section that is known. There are: "
                    f"{', '.join(SECTIONS)}."
                )
            yield from flattened(path, value, (key,))
        else:
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            if not all(isinstance(part, yaml.ScalarNode) for part in parts):
                raise InputError(
                    f"--config {at(path, key_node)}: {name} must be a value or a list of values."
                )
            yield Entry(key_node.start_mark.line + 1, name, list(map(text_of, parts)))


def text_of(scalar):
    """A scalar as it stands in the file: what 5e-5 or yes mean is the flag's business."""
    if scalar.tag.endswith(":null"):
        return "None"
    if scalar.tag.endswith(":bool"):
        return str(scalar.value.lower() in ("true", "yes", "on"))
    return scalar.value


def is_for(entry, algorithms):
    """Whether an entry is for a command of these, or in no section of an algorithm."""
    section = entry.key.split(".")[0]
    return section not in ALGORITHMS or section in algorithms


def flag_of(entry, known, path):
    """The flag that an entry sets, by name. known: {each name of a flag: the flag}.

    Raises:
        InputError: there is none; the nearest name is said.
    """
    *section, key = entry.key.replace("-", "_").split(".")
    for name in (*("_".join((s, key)) for s in section), key):
        if name in known:
            return name
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else "See --help for all flags."
    raise InputError(f"--config {path} line {entry.line}: {entry.key} is no flag of this command. {hint}")


def at(path, node):
    return f"{path} line {node.start_mark.line + 1}"
