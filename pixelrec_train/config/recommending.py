"""Flags of naming items for one person."""

from dataclasses import dataclass

from pixelrec_train.config.judging import RankingFlags, RetrievalFlags
from pixelrec_train.config.reading import PROTOCOLS, DataFlags, TextFlags
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.config.training import LaunchFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import DIRECTORY, FILE, NEW_DIRECTORY, at_least, flag, one_of

WHOM = ("history", "history_file", "user", "output_dir")


@dataclass(frozen=True, kw_only=True)
class LoadFlags(TextFlags, DataFlags, RankingFlags, RetrievalFlags, TrustFlags, LaunchFlags):
    """How checkpoints are loaded to recommend, and what of."""

    interaction_data: str | None = flag(
        "table; None = the one the checkpoint was trained on", None, path=FILE
    )
    split_protocol: str | None = flag("None = that of the checkpoint", None, one_of(*PROTOCOLS))
    text_keys: tuple[str, ...] = flag("text columns; none = those the checkpoint was trained on", ())
    num_beams: int | None = flag(
        "of a generative model: ids kept per level; None = as it was trained", None, at_least(1)
    )


@dataclass(frozen=True, kw_only=True)
class RecommendConfig(LoadFlags):
    """Items for one history, best first, with their texts and scores, and which item of the history each is
    nearest to, or of all users as files. As a library: from pixelrec_train import Recommender. For the users
    of a split, with histories and targets: scripts/predict.py.
    """

    split = "test"  # whom a blend ranks for: none of those that its weights were chosen on

    checkpoint: str = flag(
        "a checkpoint-epoch-N or best_model directory of either head, a blend of them (A+B) or a blend.json"
    )
    history: tuple[str, ...] = flag("item ids, oldest first", ())
    history_file: str | None = flag("or a file with item ids, one a line, oldest first", None, path=FILE)
    user: str | None = flag("or a user of the data, with all that they took", None)
    k: int = flag("items", 10, at_least(1))
    include_seen: bool = flag("leave the history's own items among them", False)
    new_items: str | None = flag(
        "table like --text_data of items that nobody took yet, placed by their texts; of a generative model "
        "with --codebooks",
        None,
        path=FILE,
    )
    codebooks: str | None = flag(
        "of a generative model: the directory of its semantic ids, which gives --new_items theirs",
        None,
        path=DIRECTORY,
    )
    output_dir: str | None = flag(
        "or all users of the data: a directory for Parquet files (user_id, item_ids, scores); the same "
        "command goes on where it was ended",
        None,
        path=NEW_DIRECTORY,
    )
    overwrite: bool = flag("replace what such a command has left in --output_dir", False)
    as_json: bool = flag("one JSON object a line, for other programs", False)
    hybrid: str | None = flag("of a generative model: a two-tower checkpoint that ranks what it found", None)

    def __post_init__(self):
        super().__post_init__()
        named = [name for name in WHOM if getattr(self, name)]
        if len(named) > 1:
            raise InputError(f"--{named[0]} and --{named[1]} both say whom to recommend to. Give one.")
        if self.codebooks and not self.new_items:
            raise InputError("--codebooks gives ids to --new_items. Name that table, or leave it out.")
