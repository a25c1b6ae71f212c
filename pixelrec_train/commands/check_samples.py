"""What stands in Parquet files of chats and documents, and what is wrong in which file and row."""

import sys
from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import DIRECTORY, FILE, Flags, at_least, check_paths, flag, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class CheckSamplesConfig(Flags):
    """Check samples before they are trained on: counts by source, lengths as bars, and every rule of the
    format. Nothing is written. Exit status 0 when nothing is wrong, 1 when rows are, 2 when the files cannot
    be found or read.
    """

    samples: tuple[str, ...] = flag(
        "Parquet files, directories, patterns, or JSON lists of them", (), repeated=True, positional=True
    )
    dataset_config: str | None = flag(
        "the JSON that training reads; its sources are checked", None, path=FILE
    )
    model_dir: str | None = flag(
        "directory whose tokenizer counts tokens; None = base_model_dir of --dataset_config, or characters "
        "are counted",
        None,
        path=DIRECTORY,
    )
    tokenised: int = flag("samples whose tokens are counted, of all files evenly", 20_000, at_least(1))
    processes: int | None = flag("processes that read; None = one per core", None, at_least(1))

    def __post_init__(self):
        super().__post_init__()
        if bool(self.samples) == bool(self.dataset_config):
            raise InputError("name files to check, or a --dataset_config with sources; one of the two.")


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(CheckSamplesConfig, argv))
    from pixelrec_train.trainings.check_samples import Report

    report = Report(config)
    for line in report.lines():
        print(line, flush=True)
    sys.exit(int(report.is_wrong))
