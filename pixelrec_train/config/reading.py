"""Flags of what is read: interactions, histories, texts."""

from dataclasses import dataclass

from pixelrec_train.flags import COLUMNS, DISTINCT, FILE, NEW_DIRECTORY, Flags, Rule, at_least, flag

SEQUENCE = Rule("counts history + target: at least 2", lambda length: length >= 2)


@dataclass(frozen=True, kw_only=True)
class CacheFlags(Flags):
    cache_dir: str = flag(
        "where sequences and token ids are cached", "results/cache", path=NEW_DIRECTORY, may_differ=True
    )


@dataclass(frozen=True, kw_only=True)
class DataFlags(CacheFlags):
    """Who took which item when, and what of it is held out."""

    interaction_data: str = flag("CSV with columns item_id, user_id, timestamp", path=FILE)
    split_data: str | None = flag(
        "CSV with split, user_id, item_id, history: what is held out; None = everybody's last two items",
        None,
        path=FILE,
    )


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
class TextFlags(Flags):
    """What is read of an item's text."""

    text_data: str | None = flag("CSV with a column item_id and the text columns", None, path=FILE)
    text_keys: tuple[str, ...] = flag(
        "text columns, in the order they are read", ("title", "description"), COLUMNS, DISTINCT
    )
    max_text_length: int = flag("tokens kept of an item's text", 256, at_least(1))
