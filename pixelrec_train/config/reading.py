"""Flags of what is read: interactions, histories, texts."""

from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    COLUMNS,
    DISTINCT,
    FILE,
    NEW_DIRECTORY,
    Flags,
    Rule,
    at_least,
    flag,
    given,
    one_of,
)

SEQUENCE = Rule("counts history + target: at least 2", lambda length: length >= 2)
PROTOCOLS = LEAVE_LAST_TWO, LAST_ITEM, TIME_811 = "leave_last_two", "last_item", "time_811"


@dataclass(frozen=True, kw_only=True)
class CacheFlags(Flags):
    cache_dir: str = flag(
        "where sequences and token ids are cached", "results/cache", path=NEW_DIRECTORY, may_differ=True
    )


@dataclass(frozen=True, kw_only=True)
class TableFlags(CacheFlags):
    """How tables are read: CSV (commas, tabs, semicolons), RecBole's, JSON lines, Parquet; packed or not."""

    user_column: str | None = flag("column of users; None = user_id, or a name it is known by", None)
    item_column: str | None = flag("column of items; None = item_id, or a name it is known by", None)
    time_column: str | None = flag(
        "column of times: numbers or dates; None = timestamp, or a name it is known by, or the order of rows",
        None,
    )
    encoding: str | None = flag("of the tables, as utf-8 or gb18030; None = it is found", None)


@dataclass(frozen=True, kw_only=True)
class DataFlags(TableFlags):
    """Who took which item when, and what of it is held out."""

    interaction_data: str = flag("table with columns item_id, user_id and perhaps timestamp", path=FILE)
    valid_data: str | None = flag("the same of what is held out to validate, if it is apart", None, path=FILE)
    test_data: str | None = flag("the same of what is held out to test", None, path=FILE)
    split_data: str | None = flag(
        "table with split, user_id, item_id, history: what is held out; None = as --split_protocol says",
        None,
        path=FILE,
    )
    split_protocol: str | None = flag(
        "what is held out of one table: leave_last_two = everybody's last item to test, the one before to "
        "validate; last_item = the last to validate, no label to test (OneRec-Think); time_811 = all rows by "
        "time, 8:1:1 (MiniOneRec); None = leave_last_two, or what files say",
        None,
        one_of(*PROTOCOLS),
    )

    def __post_init__(self):
        super().__post_init__()
        if bool(self.valid_data) != bool(self.test_data) or (self.valid_data and self.split_data):
            raise InputError("--valid_data and --test_data go together, and without --split_data.")
        if self.split_protocol and (self.split_data or self.valid_data):
            says = "--split_data" if self.split_data else "--valid_data"
            raise InputError(
                f"--split_protocol {self.split_protocol} says what is held out, but {says} does, too. "
                f"Leave one of them out."
            )


def refuse_without_table(config):
    """Raises InputError where a flag of DataFlags was given and not --interaction_data, which it is about.

    For commands that may do without.
    """
    about = (*DataFlags.__annotations__, *TableFlags.__annotations__)
    for name in given(config):
        if name in about and not config.interaction_data:
            raise InputError(f"--{name} is for --interaction_data. Name that table, or leave it out.")


@dataclass(frozen=True, kw_only=True)
class WindowFlags(Flags):
    """How much of a user's history is read."""

    max_seq_length: int = flag("items per training window, history + target", 11, SEQUENCE)
    one_window_per_user: bool = flag("train on each user's newest window alone, as HLLM does on Books", False)
    eval_seq_length: int | None = flag(
        "the same in evaluation; None = max_seq_length (HLLM on Books: 56, and 51 here)", None, SEQUENCE
    )

    @property
    def seq_length_in_evaluation(self):
        return self.eval_seq_length or self.max_seq_length


@dataclass(frozen=True, kw_only=True)
class TextFlags(TableFlags):
    """What is read of an item's text."""

    text_data: str | None = flag("table with a column item_id and the text columns", None, path=FILE)
    text_keys: tuple[str, ...] = flag(
        "text columns, in the order they are read", ("title", "description"), COLUMNS, DISTINCT
    )
    allow_missing_text: bool = flag("read items without text as empty even if they are many", False)


@dataclass(frozen=True, kw_only=True)
class TokenFlags(TextFlags):
    """The same where a model reads the text."""

    max_text_length: int = flag("tokens kept of an item's text", 256, at_least(1))
