"""What stands in Parquet files of chats and documents, and what is wrong in which file and row."""

import sys
from dataclasses import dataclass

from pixelrec_train.config import DataFlags
from pixelrec_train.config.reading import refuse_without_table
from pixelrec_train.errors import InputError
from pixelrec_train.flags import DIRECTORY, FILE, at_least, check_paths, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.semantic_id.codecs import CODECS


@dataclass(frozen=True, kw_only=True)
class CheckSamplesConfig(DataFlags):
    """Check samples before they are trained on: counts by source, lengths as bars, every rule of the format,
    answers in their own questions; with --semantic_ids ids that no item has, with --model_dir words that the
    tokenizer splits, with --interaction_data held-out items. Nothing but --cache_dir is written. Exit status
    0 when nothing is wrong, 1 when rows are, 2 when the files cannot be found or read.
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
    semantic_ids: str | None = flag(
        "file that scripts/build_semantic_ids.py wrote: ids in texts must be those of its items",
        None,
        path=FILE,
    )
    codec: str | None = flag(
        f"spelling of ids: {', '.join(CODECS)}; None = that of --model_dir, or onerec", None, one_of(*CODECS)
    )
    interaction_data: str | None = flag(
        "table of interactions, split as in training: no sample may hold what is held out", None, path=FILE
    )
    processes: int | None = flag("processes that read; None = one per core", None, at_least(1))

    def __post_init__(self):
        super().__post_init__()
        if bool(self.samples) == bool(self.dataset_config):
            raise InputError("name files to check, or a --dataset_config with sources; one of the two.")
        if self.codec and not self.semantic_ids:
            raise InputError("--codec is the spelling of --semantic_ids. Name their file, or leave it out.")


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(CheckSamplesConfig, argv))
    from pixelrec_train.trainings.check_samples import Report

    refuse_without_table(config)
    report = Report(config)
    for line in report.lines():
        print(line, flush=True)
    sys.exit(int(report.is_wrong))
