"""Train a language model on pairs of answers, the better and the worse: direct preference optimisation."""

from pixelrec_train.config.preferences import DpoConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(DpoConfig, argv)))
    config.tell_trackers()
    from pixelrec_train.trainings import train_preferences

    train_preferences.main(config)
