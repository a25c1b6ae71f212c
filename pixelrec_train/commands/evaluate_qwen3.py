"""Judge language models with itemic tokens, plain Hugging Face directories, on held-out users."""

from dataclasses import dataclass

from pixelrec_train.config import LaunchFlags, TrustFlags
from pixelrec_train.config.judging import cut_off_as_asked
from pixelrec_train.config.samples import AskFlags
from pixelrec_train.flags import MODEL, NEW_DIRECTORY, NEW_FILE, check_paths, flag, parse_args
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched


@dataclass(frozen=True, kw_only=True)
class EvaluateQwen3Config(AskFlags, TrustFlags, LaunchFlags):
    """Judge language models on held-out users: the catalogue is ranked by beams under its trie.

    Each model gets a row of the table for each way to ask it, beside popularity.
    """

    model_dir: tuple[str, ...] = flag(
        "a Hugging Face directory with itemic tokens: an export of training, converted, or expanded; or "
        "NAME=DIRECTORY. May be given several times",
        path=MODEL,
        repeated=True,
    )
    output_dir: str = flag("where table.md and table.json go", "results/evaluate_qwen3", path=NEW_DIRECTORY)
    save_results: str | None = flag(
        "JSON file that gets the table and the ranked items of every user", None, path=NEW_FILE
    )


@speak_plainly
def main(argv=None):
    config = check_paths(cut_off_as_asked(parse_args(EvaluateQwen3Config, argv)))
    config = fetched(config)
    from pixelrec_train.trainings import evaluate_models

    evaluate_models.main(config)
