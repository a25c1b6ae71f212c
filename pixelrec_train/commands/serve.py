"""Checkpoints behind HTTP: an API, and a page for people."""

from pixelrec_train.config.serving import ServeConfig
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(ServeConfig, argv))
    from pixelrec_train.trainings import serve

    serve.main(config)
