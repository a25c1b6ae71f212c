"""Judge language models with itemic tokens, plain Hugging Face directories, on held-out users."""

from dataclasses import dataclass

from pixelrec_train.config import DataFlags, DecodingFlags, LaunchFlags, TrustFlags
from pixelrec_train.flags import (
    DISTINCT,
    FILE,
    NEW_DIRECTORY,
    NOT_NEGATIVE,
    SEED,
    Rule,
    at_least,
    check_paths,
    flag,
    one_of,
    parse_args,
)
from pixelrec_train.run.exit_status import speak_plainly

FORMS = ("history", "chat", "think")


@dataclass(frozen=True, kw_only=True)
class EvaluateQwen3Config(DataFlags, TrustFlags, DecodingFlags, LaunchFlags):
    """Judge language models on held-out users: the catalogue is ranked by beams under its trie.

    Each model gets a row of the table for each way to ask it, beside popularity.
    """

    model_dir: tuple[str, ...] = flag(
        "a Hugging Face directory with itemic tokens: an export of training, converted, or expanded; or "
        "NAME=DIRECTORY. May be given several times",
        repeated=True,
    )
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    prompts: tuple[str, ...] = flag(
        "history = ids alone, as in pretraining; chat = video_rec's; think = the same, behind a thought",
        ("history", "chat"),
        Rule(f"names some of {', '.join(FORMS)}", lambda names: names and set(names) <= set(FORMS)),
        DISTINCT,
    )
    split: str = flag(
        "valid = second-last item of every user; test = last item", "test", one_of("valid", "test")
    )
    users: int | None = flag("held-out users judged, drawn once; None = all", None, at_least(1))
    history: int = flag("newest items of a history that a prompt names", 512, at_least(1))
    add_think_pattern: bool = flag(
        "chat ends in /no_think and an empty thought, as OpenOneRec's SFT trains it; False = in neither", True
    )
    num_beams: int = flag("semantic ids kept per user and level, at least", 32, at_least(1))
    eval_batch_size: int = flag("users per GPU and block in evaluation", 256, at_least(1), may_differ=True)
    thought_tokens: int = flag("think: tokens of a thought, at most", 256, at_least(1))
    temperature: float = flag("think: 0 = always the likeliest token", 0.6, NOT_NEGATIVE)
    top_p: float = flag(
        "think: share of the probability that the likeliest tokens hold who may be drawn",
        0.95,
        Rule("must be in (0, 1]", lambda share: 0 < share <= 1),
    )
    top_k: int | None = flag("think: likeliest tokens that may be drawn; None = all", 20, at_least(1))
    seed: int = flag("of thoughts, of --users, and of the words of chats, as in build_samples", 42, SEED)
    output_dir: str = flag("where table.md and table.json go", "results/evaluate_qwen3", path=NEW_DIRECTORY)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(EvaluateQwen3Config, argv))
    from pixelrec_train.trainings import evaluate_models

    evaluate_models.main(config)
