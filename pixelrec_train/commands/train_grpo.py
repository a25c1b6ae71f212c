"""Reinforcement learning of a language model with itemic tokens: groups of answers compared (GRPO)."""

from pixelrec_train.config.policy import GrpoConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(GrpoConfig, argv)))
    from pixelrec_train.trainings import train_policy

    train_policy.main(config, "grpo")
