"""Train a two-tower HLLM, judge it on validation after every epoch and on test at the end."""

from pixelrec_train.config import TrainConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(TrainConfig, argv)))
    from pixelrec_train.trainings import train_two_tower

    train_two_tower.main(config)
