"""What training and evaluation read in common: two tables become sequences, splits and token ids."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.config.reading import TIME_811
from pixelrec_train.data import interactions, item_text
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.given_split import read_split, split_sessions, split_tables
from pixelrec_train.data.interactions import Interactions, Split
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.protocols import split_by, taken_by
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file
from pixelrec_train.run import watchdog


@dataclass(frozen=True)
class Inputs:
    interactions: Interactions
    split: Split
    item_text: ItemText

    def describe(self):
        """Lines for the log: what was read and how it was split."""
        split = self.split
        cold = int((split.train_counts == 0).sum())
        test = "targets" if split.test.labelled else "histories without a target"
        return [
            f"data: {self.interactions.summary()}",
            *self.interactions.notes,
            *self.item_text.notes,
            f"split: {len(split.windows):,} training windows, {len(split.valid):,} validation and "
            f"{len(split.test):,} test {test}; {split.origin}; {cold:,} items are cold, in no window",
            f"text: {self.item_text.summary()}",
        ]

    def facts(self):
        """For run.json: fingerprints and sizes of what was trained on."""
        return {
            "data": {
                "interactions": self.interactions.fingerprint,
                "item_text": self.item_text.fingerprint,
                "users": self.interactions.num_users,
                "items": self.interactions.num_items,
                "split": self.split.origin,
                "training_windows": len(self.split.windows),
                "unusable_rows": self.interactions.unusable,
            }
        }


def read_inputs(data, windows, reader=None, with_times=False):
    """Inputs of DataFlags and WindowFlags.

    Args:
        reader: item_text.Reader; None = texts are not read.
        with_times: whether histories must have their times.

    Raises:
        InputError: a table or its split cannot be read, or has no times.
    """
    if reader:
        existing_file(reader.texts.text_data, "--text_data")
    read = read_interactions(data, with_times=with_times)
    split = split_of(read, data, windows.max_seq_length, windows.one_window_per_user)
    if with_times and split.taken.times is None:
        raise without_times(read, data)
    texts = item_text.read(read, reader) if reader else ItemText.unread(read.num_items)
    return Inputs(read, split, texts)


def without_times(read, data):
    """The InputError of Interactions, or of their split, that do not say when items were taken."""
    way_out = "Use another split"
    if read.times is None:
        lacks, way_out = f"{data.interaction_data} has no column timestamp", "Name it with --time_column"
    elif data.split_data:
        lacks = "rows of --split_data name the items of a history without their times"
    else:
        lacks = "sessions name the items of a history without their times"
    return InputError(
        f"--time_features reads when items were taken, but {lacks}. {way_out}, or leave it out."
    )


def read_interactions(data, label_column=None, with_times=False):
    """Interactions of DataFlags; with what a further column says of each, and when each was, if asked for."""
    flags = ("interaction_data", "valid_data", "test_data")
    paths = [existing_file(getattr(data, name), f"--{name}") for name in flags if getattr(data, name)]
    return interactions.read(paths, data, label_column, with_times or data.split_protocol == TIME_811)


def held_out_files(data):
    """Those of DataFlags that say what is held out."""
    return [Path(path) for path in (data.split_data, data.valid_data, data.test_data) if path]


@watchdog.busy("splitting the interactions")
def split_of(read, data, max_seq_length, one_window_per_user=False):
    """Split: of --split_data, of tables or sessions, else by --split_protocol."""
    windows, files = (max_seq_length, one_window_per_user), held_out_files(data)
    if data.split_data:
        return read_split(data.split_data, read, *windows)
    if not files and not read.of_sessions:
        return split_by(data.split_protocol, read, data.interaction_data, *windows)
    if data.split_protocol:
        raise InputError(
            f"--split_protocol {data.split_protocol} splits what users took, but {data.interaction_data} "
            f"holds sessions, each a history and its target. Leave it out: their last tenth is held out."
        )
    names = " and ".join(path.name for path in files)
    origin = (
        f"rows of {names} ({fingerprint(*files)})" if files else "the last tenth of the sessions, half each"
    )
    split = split_sessions if read.of_sessions else split_tables
    return split(read, *windows, origin)


def taken_in_training(read, data):
    """Taken, as split_of has it, also where nobody took enough to train on."""
    if held_out_files(data) or read.of_sessions:
        return split_of(read, data, max_seq_length=2).taken  # whatever windows keep of it
    return taken_by(data.split_protocol, read, data.interaction_data)
