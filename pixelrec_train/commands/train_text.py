"""Train a language model on texts or chats: continued pretraining and SFT, as Genesis has them."""

from pixelrec_train.config.texts import TextsConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(TextsConfig, argv)))
    config.tell_trackers()
    if config.objective == "mlm":
        from pixelrec_train.trainings import train_masked as training
    else:
        from pixelrec_train.trainings import train_texts as training
    training.main(config)
