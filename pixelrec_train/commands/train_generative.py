"""Train a language model to say the next item's semantic id; judge it under the trie of the catalogue."""

from pixelrec_train.config import GenerativeConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(GenerativeConfig, argv)))
    from pixelrec_train.trainings import train_tokens

    train_tokens.main(config)
