"""What training and evaluation read in common: two CSV files become sequences, splits and token ids."""

from dataclasses import dataclass

from pixelrec_train.data import interactions, item_text
from pixelrec_train.data.given_split import read_split
from pixelrec_train.data.interactions import Interactions, Split
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.files import existing_file


@dataclass(frozen=True)
class Inputs:
    interactions: Interactions
    split: Split
    item_text: ItemText

    def describe(self):
        """Lines for the log: what was read and how it was split."""
        split = self.split
        cold = int((split.train_counts == 0).sum())
        return [
            f"data: {self.interactions.summary()}",
            f"split: {len(split.windows):,} training windows, {len(split.valid):,} validation and "
            f"{len(split.test):,} test targets; {split.origin}; {cold:,} items are cold, in no window",
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


def read_inputs(config):
    """config: interaction_data, text_data, id_only, the text settings, split_data, max_seq_length,
    one_window_per_user, item_dir (whose tokenizer reads), cache_dir."""
    existing_file(config.interaction_data, "--interaction_data")
    if not config.id_only:
        existing_file(config.text_data, "--text_data")
    read = interactions.read(config.interaction_data, config.cache_dir)
    split = split_of(read, config)
    texts = ItemText.unread(read.num_items) if config.id_only else item_text.read(read, config)
    return Inputs(read, split, texts)


def split_of(interactions_read, config):
    """Split: that of --split_data, else everybody's last two items are held out."""
    one_window = getattr(config, "one_window_per_user", False)
    if config.split_data:
        return read_split(config.split_data, interactions_read, config.max_seq_length, one_window)
    return interactions.leave_last_two_out(interactions_read, config.max_seq_length, one_window)
