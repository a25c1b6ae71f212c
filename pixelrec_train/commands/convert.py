"""Public data sets in their makers' own layouts become our two tables, with counts beside published ones."""

import difflib
from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    FILE_NAME,
    NEW_DIRECTORY,
    SEED,
    Flags,
    at_least,
    check_paths,
    flag,
    given,
    one_of,
    parse_args,
)
from pixelrec_train.run.exit_status import speak_plainly

NAMES = (
    "pixelrec", "amazon2014", "amazon2018", "amazon2023", "movielens", "kuairand", "mind", "yambda",
    "recbole", "minionerec", "rere", "onerec_think",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Flags):
    """Files of a public data set, as its makers publish them, become dataset/SAVED.csv and
    information/SAVED.csv. What is read and what is left after each filter stands below the published counts.
    What to bring of each, and its licence: docs/convert.md.
    """

    name: str | None = flag(f"data set: {', '.join(NAMES)}", None, positional=True)
    files: tuple[str, ...] = flag(
        "its files, or the folder or zip file that they lie in", (), positional=True, repeated=True
    )
    output_dir: str = flag("directory that gets dataset/ and information/", ".", path=NEW_DIRECTORY)
    save_as: str | None = flag("SAVED; None = names of the data set and its edition", None, FILE_NAME)
    min_rating: float | None = flag("interactions rated lower are left out; None = none is", None)
    k_core: int = flag(
        "users and items with fewer interactions are left out, until none has fewer; 1 = none is",
        1,
        at_least(1),
    )
    max_users: int | None = flag(
        "at most so many users, drawn by --seed from those who are left, with all that they took",
        None,
        at_least(1),
    )
    duplicates: str | None = flag(
        "rows that repeat others: all are kept; exact: user, item and time occur once; first: a user's first "
        "row of each item; None = as its makers do: first of amazon2023, all of the others",
        None,
        one_of("all", "exact", "first"),
    )
    history: bool = flag("mind: clicks before the log, which have no times, come first", False)
    seed: int = flag("of --max_users", 42, SEED)
    overwrite: bool = flag("replace tables that are there", False)

    def __post_init__(self):
        super().__post_init__()
        if self.name is None or not self.files:
            raise InputError(f"name a data set and its files: convert NAME FILES. NAME: {', '.join(NAMES)}.")
        if self.name not in NAMES:
            near = difflib.get_close_matches(self.name, NAMES, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(NAMES)}."
            raise InputError(f"no data set {self.name!r} is known. {hint}")


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(ConvertConfig, argv))
    if config.name != "mind" and "history" in given(config):
        raise InputError("--history is for mind. Leave it out.")
    from pixelrec_train.data.convert.converting import Kept, convert

    kept = Kept(config.min_rating, config.duplicates, config.k_core, config.max_users, config.seed)
    more = {"history": config.history} if config.name == "mind" else {}
    for line in convert(
        config.name, config.files, kept, config.output_dir, config.save_as, config.overwrite, **more
    ):
        print(line, flush=True)
