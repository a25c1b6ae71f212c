"""Write ranked items for every user of a split, whether the next one is known or not."""

from dataclasses import dataclass

from pixelrec_train.config import LaunchFlags, RetrievalFlags, TrustFlags
from pixelrec_train.config.judging import cut_off_as_asked
from pixelrec_train.config.samples import FORMS, AskFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    FILE,
    MODEL,
    NEW_DIRECTORY,
    Rule,
    at_least,
    check_paths,
    flag,
    parse_args,
    refuse_beside_checkpoint,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched

# Of a checkpoint these are as it was trained.
OF_MODELS = (
    "semantic_ids", "prompts", "question", "category", "history", "add_think_pattern", "thought_tokens",
    "temperature", "top_p", "top_k", "normalised_over", "verbose",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PredictConfig(AskFlags, RetrievalFlags, TrustFlags, LaunchFlags):
    """Write ranked items for every user of a split, whether the next one is known or not.

    --output_dir gets predictions.parquet and predictions.jsonl, a row for each user: user_id, history, target
    (or null), and side by side item_ids, titles, scores and semantic_ids of the best items, best first. Items
    that share a semantic id have one score, and follow each other by popularity in training. Where targets
    are known, the table of evaluate_qwen3 lies beside them.
    """

    model_dir: str | None = flag(
        "a Hugging Face directory with itemic tokens, as of evaluate_qwen3",
        None,
        path=MODEL,
        alias=("model_path",),
    )
    checkpoint: str | None = flag(
        "or a checkpoint-epoch-N or best_model directory of train_pixelrec or train_generative, a blend of "
        "them (A+B) or a blend.json; tables that are not named are those it was trained on",
        None,
    )
    hybrid: str | None = flag(
        "of a generative --checkpoint: a two-tower checkpoint (or A+B) that ranks what it has found", None
    )
    output_dir: str = flag("directory to write; predictions that lie there are replaced", path=NEW_DIRECTORY)
    interaction_data: str | None = flag(
        "table with columns item_id, user_id and perhaps timestamp", None, path=FILE
    )
    text_data: str | None = flag(
        "table with a column item_id and the text columns, for titles (the first of --text_keys), and where "
        "--question or a checkpoint reads texts",
        None,
        path=FILE,
    )
    semantic_ids: str | None = flag("file that scripts/build_semantic_ids.py wrote", None, path=FILE)
    topk: tuple[int, ...] = flag(
        "cut-offs; the largest is how many items a user gets",
        (1, 5, 10),
        Rule("needs cut-offs of at least 1", lambda ks: ks and min(ks) >= 1),
        Rule("must name each only once", lambda ks: len(set(ks)) == len(ks)),
    )
    prompts: tuple[str, ...] = flag(
        "how users are asked: history = ids alone; chat = that of --question; think = behind a thought",
        ("chat",),
        Rule(f"is one of {', '.join(FORMS)}", lambda names: len(names) == 1 and names[0] in FORMS),
    )
    num_beams: int = flag(
        "semantic ids kept per user and level, at least; of a checkpoint as it was trained, unless given",
        32,
        at_least(1),
    )

    def __post_init__(self):
        super().__post_init__()
        if bool(self.model_dir) == bool(self.checkpoint):
            raise InputError("Name --model_dir or --checkpoint, one of the two: what is to rank.")
        if self.model_dir and self.hybrid:
            raise InputError("--hybrid goes with a generative --checkpoint, not with --model_dir.")
        for name in ("interaction_data", "semantic_ids") if self.model_dir else ():
            if not getattr(self, name):
                raise InputError(f"--model_dir needs --{name}: whom to rank for, and what.")


def fitting(config):
    """The config; InputError where a flag that was given has nothing to say to a checkpoint."""
    refuse_beside_checkpoint(config, OF_MODELS, "model_dir")
    return config


@speak_plainly
def main(argv=None):
    config = check_paths(fitting(cut_off_as_asked(parse_args(PredictConfig, argv))))
    config = fetched(config)
    from pixelrec_train.trainings import predict

    predict.main(config)
