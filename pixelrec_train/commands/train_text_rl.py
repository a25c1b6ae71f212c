"""Train a language model on prompts by rewards for its answers: GRPO or PPO."""

from pixelrec_train.config.text_policy import TextPolicyConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(TextPolicyConfig, argv)))
    config.tell_trackers()
    from pixelrec_train.trainings import train_text_policy

    train_text_policy.main(config)
