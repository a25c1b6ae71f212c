"""Judge a checkpoint on the validation or test split, and leave its embeddings and index for serving."""

from dataclasses import dataclass

from pixelrec_train.config import DataFlags, LaunchFlags, RankingFlags, RetrievalFlags, TrustFlags
from pixelrec_train.config.reading import PROTOCOLS
from pixelrec_train.flags import DISTINCT, FILE, at_least, check_paths, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataFlags, TrustFlags, RankingFlags, RetrievalFlags, LaunchFlags):
    """Rank the whole catalogue for every held-out user with a trained checkpoint."""

    checkpoint: str = flag(
        "a checkpoint-epoch-N or best_model directory; or a blend of them, item_knn and tfidf: A+B+…, its "
        "weights chosen on validation, or a blend.json"
    )
    split: str = flag(
        "valid or test: of every user the second-last item, or the last, unless --split_protocol says else",
        "test",
        one_of("valid", "test"),
    )
    interaction_data: str | None = flag("CSV; None = the one the checkpoint was trained on", None, path=FILE)
    text_data: str | None = flag("CSV; None = the one the checkpoint was trained on", None, path=FILE)
    split_data: str | None = flag("CSV; None = the split the checkpoint was trained on", None, path=FILE)
    split_protocol: str | None = flag(
        "as of training; None = that of the checkpoint, which must agree", None, one_of(*PROTOCOLS)
    )
    hybrid: str | None = flag(
        "of a generative model: a two-tower checkpoint (or A+B) that ranks what it has found, and cold items",
        None,
    )
    output_dir: str | None = flag(
        "where metrics.json and the index go; None = <checkpoint>/eval-<split>; A+B needs it", None
    )
    text_keys: tuple[str, ...] = flag(
        "text columns tfidf reads; none = those that the other parts of its blend were trained on",
        (),
        DISTINCT,
    )
    num_beams: int | None = flag(
        "of a generative model: ids kept per level; None = as it was trained", None, at_least(1)
    )


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(EvaluateConfig, argv))
    from pixelrec_train.trainings import evaluate_checkpoint

    evaluate_checkpoint.main(config)
