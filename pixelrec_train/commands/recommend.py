"""What should this person be shown? Items for a history, with their texts and why, from a checkpoint."""

from pixelrec_train.config.recommending import WHOM, RecommendConfig
from pixelrec_train.errors import InputError
from pixelrec_train.flags import check_paths, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(RecommendConfig, argv))
    if not any(getattr(config, name) for name in WHOM):
        raise InputError("whom to recommend to? Give --history, --history_file, --user or --output_dir.")
    from pixelrec_train.trainings import recommend_all, recommend_one

    (recommend_all if config.output_dir else recommend_one).main(config)
