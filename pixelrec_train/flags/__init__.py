"""Flags: dataclass fields, and the command line that sets them."""

from pixelrec_train.flags.command_line import fields_of, parse_args
from pixelrec_train.flags.fields import (
    COLUMNS,
    DIRECTORY,
    DISTINCT,
    FILE,
    FILE_NAME,
    MINUTES,
    MODEL,
    NEW_DIRECTORY,
    NEW_FILE,
    NOT_NEGATIVE,
    POSITIVE,
    RANKS,
    REQUIRED,
    SEED,
    SHARE,
    Flags,
    Rule,
    as_text,
    at_least,
    check_paths,
    flag,
    given,
    idle,
    one_of,
    part,
    refuse_beside_checkpoint,
    refuse_unless,
    replace,
)

__all__ = [
    "COLUMNS", "DIRECTORY", "DISTINCT", "FILE", "FILE_NAME", "MINUTES", "MODEL", "NEW_DIRECTORY", "NEW_FILE",
    "NOT_NEGATIVE", "POSITIVE", "RANKS", "REQUIRED", "SEED", "SHARE", "Flags", "Rule", "as_text",
    "at_least", "check_paths", "fields_of", "flag", "given", "idle", "one_of", "parse_args", "part",
    "refuse_beside_checkpoint", "refuse_unless", "replace",
]  # fmt: skip
