"""What the loader sees of a dataset: counts, what is odd and where, distributions, the cost of an epoch."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.config import TrainConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.errors import InputError
from pixelrec_train.flags import FILE, RANKS, check_paths, flag, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class CheckDataConfig(TrainConfig):
    """What training would see of a dataset: its size, what is odd and in which lines, what an epoch costs.

    The flags are those of training, so its command line can be pasted; towers are optional. Only --cache_dir
    is written, where training finds what was read. Exit status 0 when the data load (whatever is odd is
    listed), 2 when training would refuse them.
    """

    dataset: str | None = flag(
        "NAME stands for --interaction_data dataset/NAME.csv --text_data information/NAME.csv; "
        "or the path of --interaction_data",
        None,
        positional=True,
    )
    interaction_data: str | None = flag("CSV with columns item_id, user_id, timestamp", None, path=FILE)
    dry_run: int | None = flag("ranks the cost of an epoch is told for; None = 1", None, RANKS)

    def __post_init__(self):
        if not (self.dataset or self.interaction_data):
            raise InputError("name a dataset (NAME means dataset/NAME.csv), or give --interaction_data.")
        if self.dataset and Path(self.dataset).is_file() and not self.interaction_data:
            self.set(interaction_data=self.dataset, dataset=None)
        for name, folder in (("interaction_data", "dataset"), ("text_data", "information")):
            if self.dataset and not getattr(self, name):
                self.set(**{name: f"{folder}/{self.dataset}.csv"})
        super().__post_init__()

    def check_towers(self):
        if self.has_towers:
            super().check_towers()

    @property
    def has_towers(self):
        return bool((self.user_model_dir or self.init_from) and (self.item_dir or self.id_only))

    @property
    def has_texts(self):
        return bool(self.text_data) and not self.id_only


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(CheckDataConfig, argv)))
    from pixelrec_train.trainings import check_dataset

    for line in check_dataset.report(config):
        print(line, flush=True)
