"""A two-tower checkpoint for other programs: FAISS indexes, towers, a sentence-transformers directory."""

from pixelrec_train.config.exporting import ExportConfig, check_sizes
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(ExportConfig, argv))
    check_sizes(config)
    from pixelrec_train.trainings import export

    export.main(config)
