"""What should this person be shown? Items for a history, with their texts and why, from a checkpoint."""

from pixelrec_train.config.recommending import RecommendConfig
from pixelrec_train.errors import InputError
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(RecommendConfig, argv))
    if not (config.history or config.history_file or config.user):
        raise InputError("whom to recommend to? Give --history, --history_file or --user.")
    from pixelrec_train.trainings import recommend

    recommend.main(config)
