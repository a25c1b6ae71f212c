"""One table for a dataset: baselines and any checkpoints, on the same users by the same rules."""

from dataclasses import dataclass

from pixelrec_train.config import (
    DataFlags,
    LoopFlags,
    RankingFlags,
    RetrievalFlags,
    TextFlags,
    TrustFlags,
    require_cut_off,
)
from pixelrec_train.config.judging import BASELINES, TRAINED
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    COLUMNS,
    DISTINCT,
    FILE,
    NEW_FILE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Rule,
    at_least,
    check_paths,
    flag,
    given,
    one_of,
    parse_args,
    refuse_unless,
)
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class CompareConfig(DataFlags, TextFlags, TrustFlags, RankingFlags, RetrievalFlags, LoopFlags):
    """One table for a dataset: baselines, some of them trained here, and any checkpoints. Or, with --runs,
    what changed between finished runs: from their files alone, nothing is trained.
    """

    runs: tuple[str, ...] = flag(
        "finished runs, or what evaluate_pixelrec left, with commas between: each is compared with the "
        "first, user by user. No other flag but --html goes with it",
        (),
    )
    html: str | None = flag("with --runs: file to write the comparison to, as a page", None, path=NEW_FILE)
    interaction_data: str | None = flag(
        "table with columns item_id, user_id and perhaps timestamp; required without --runs", None, path=FILE
    )
    text_data: str | None = flag(
        "table with a column item_id and the text columns; required without --runs", None, path=FILE
    )
    text_keys: tuple[str, ...] = flag(
        "text columns TF-IDF reads", ("title", "description"), COLUMNS, DISTINCT
    )
    checkpoint: tuple[str, ...] = flag(
        "a checkpoint-epoch-N or best_model directory; may be given several times. A+B+… is a blend, its "
        "weights chosen on validation: of checkpoints of either head, item_knn, tfidf, ease and the trained "
        "--baselines; or a blend.json",
        (),
        repeated=True,
    )
    hybrid: str | None = flag(
        "a two-tower checkpoint (or A+B) that ranks what a generative --checkpoint finds, and cold items; "
        "a row of its own",
        None,
    )
    split: str = flag(
        "valid or test: of every user the second-last item, or the last, unless --split_protocol says else",
        "test",
        one_of("valid", "test"),
    )
    baselines: tuple[str, ...] = flag(
        "rows to beat: popularity, item_knn, tfidf, knn_tfidf (a blend of both) and ease (EASE^R, up to "
        "20,000 items) in seconds; sasrec, esasrec (LiGR blocks, sampled softmax) and hstu are trained, "
        "minutes each",
        ("popularity", "item_knn", "tfidf", "knn_tfidf", "ease", "sasrec"),
        Rule(f"must be some of {', '.join(BASELINES)}", lambda names: names and set(names) <= {*BASELINES}),
        DISTINCT,
    )
    output_dir: str = flag("where table.md, table.json and runs of baselines go", "results/compare")
    logging_dir: str = flag("TensorBoard events of baselines; their logs are there, too", "logs/compare")

    # Small models of their own, so some defaults differ from those of an LLM
    max_seq_length: int = flag(
        "trained baselines: items per training sequence, history + target", 51, at_least(2)
    )
    seq_lengths: tuple[int, ...] = flag(
        "trained baselines: several such numbers, as 11,51,201: all are trained, validation ndcg@10 chooses",
        (),
        Rule("needs numbers of at least 2", lambda lengths: min(lengths, default=2) >= 2),
        DISTINCT,
    )
    hidden_size: int = flag("trained baselines: width of their vectors", 64, at_least(1))
    layers: int = flag("trained baselines: blocks", 2, at_least(1))
    heads: int = flag("trained baselines: attention heads", 2, at_least(1))
    dropout: float = flag("trained baselines: dropout of embeddings, attention and feed-forward", 0.5, SHARE)
    sampled_negatives: int | None = flag(
        "trained baselines: items, drawn for a micro-batch, that the softmax is over besides the target, "
        "which saves time from about 10,000 items on; 0 = all; None = 1,024 for esasrec, all for the others",
        None,
        at_least(0),
    )
    negatives_power: float = flag(
        "with sampled negatives: chances are as counts in training to this power; 0 = the same for all items",
        0.0,
        Rule("must be in [0, 1]", lambda value: 0 <= value <= 1),
    )
    logq_correction: bool = flag(
        "with sampled negatives: take the logarithm of how often each is expected off its score, so that the "
        "loss estimates the one over all items",
        False,
    )
    per_device_train_batch_size: int = flag(
        "trained baselines: sequences per GPU and micro-batch", 128, at_least(1)
    )
    num_train_epochs: int = flag("trained baselines: passes over the sequences, at most", 200, at_least(1))
    patience: int = flag(
        "trained baselines: epochs without a better validation ndcg@10 after which training ends",
        10,
        at_least(1),
    )
    learning_rate: float = flag("trained baselines: the rate after the warm-up", 1e-3, POSITIVE)
    lr_scheduler_type: str = flag(
        "trained baselines: constant_with_warmup, as nobody knows when they will stop, cosine or linear",
        "constant_with_warmup",
        one_of("cosine", "linear", "constant_with_warmup", "cosine_with_min_lr"),
    )
    warmup_steps: int | None = flag(
        "trained baselines: optimizer steps spent warming up; None = --warmup_ratio of all",
        100,
        at_least(0),
    )
    weight_decay: float = flag("trained baselines: AdamW decay", 0.0, NOT_NEGATIVE)
    dataloader_num_workers: int = flag(
        "trained baselines: processes per rank that prepare batches", 0, at_least(0)
    )
    bf16: bool = flag("trained baselines: bf16 weights over fp32 master weights", False)
    save_total_limit: int = flag(
        "trained baselines: newest checkpoints kept besides the best", 1, at_least(1)
    )

    def __post_init__(self):
        super().__post_init__()
        require_cut_off(self.topk, "ndcg@10")
        fits = Rule(f"must be a multiple of --heads {self.heads}", lambda width: width % self.heads == 0)
        refuse_unless(fits, "hidden_size", self.hidden_size)
        for name in ("negatives_power", "logq_correction"):
            if getattr(self, name) and not any(map(self.negatives_of, self.baselines)):
                raise InputError(
                    f"--{name} {getattr(self, name)} is for sampled negatives, and no baseline draws any. "
                    f"Set --sampled_negatives, or leave it out."
                )

    def negatives_of(self, baseline):
        """How many items a micro-batch of this baseline draws; 0 = none, its softmax is over all."""
        if self.sampled_negatives is None:
            return 1024 if baseline == "esasrec" else 0
        return self.sampled_negatives if baseline in TRAINED else 0


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(CompareConfig, argv))
    if config.runs:
        return between_runs(config)
    refuse_without_tables(config)
    config = adopted(config)
    from pixelrec_train.trainings import compare_models

    compare_models.main(config)


def between_runs(config):
    others = sorted(given(config) - {"runs", "html"})
    if others:
        raise InputError(f"--{others[0]} does not go with --runs, which computes nothing anew. Leave it out.")
    from pixelrec_train.report import between_page

    between_page.main(config.runs, config.html)


def refuse_without_tables(config):
    missing = [f"--{name}" for name in ("interaction_data", "text_data") if not getattr(config, name)]
    if missing:
        raise InputError(
            f"the following arguments are required: {', '.join(missing)}; or --runs, to compare "
            f"finished runs. See --help for all flags."
        )
    if config.html:
        raise InputError(f"--html {config.html} is for --runs. Leave it out; the table goes to --output_dir.")
