"""Write samples anew, with thoughts only where a model finds the item behind thoughts of its own."""

from dataclasses import dataclass

from pixelrec_train.config import DataFlags, LaunchFlags, TrustFlags
from pixelrec_train.config.reading import refuse_without_table
from pixelrec_train.flags import (
    DIRECTORY,
    FILE,
    MODEL,
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
from pixelrec_train.run.hub import fetched


@dataclass(frozen=True, kw_only=True)
class KeepThoughtsConfig(DataFlags, TrustFlags, LaunchFlags):
    """Write samples anew for a second epoch, as OneRec-Think's curriculum has it: a model that has learned
    from them is asked their questions, thinks by itself, and names items. Where the sample's own item is
    among them its thought stays, else it becomes an empty one, and its question will end in /no_think.

    --output_dir gets the files of --samples with the same rows in the same order, dataset.json, and
    facts.json with the counts. Samples without a thought before an item's id stay as they are.
    """

    samples: str = flag(
        "directory that scripts/build_samples.py wrote, as with --task reasoned_prediction", path=DIRECTORY
    )
    model_dir: str = flag(
        "a Hugging Face directory with itemic tokens, as best_model/llm of the first epoch",
        path=MODEL,
        alias=("model_path",),
    )
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    output_dir: str = flag("directory to write", path=NEW_DIRECTORY)
    overwrite: bool = flag("replace what an earlier call wrote to output_dir", False)
    interaction_data: str | None = flag(
        "table of interactions, whose items alone may be named; None = all that --semantic_ids has",
        None,
        path=FILE,
    )
    thoughts: int = flag(
        "thoughts drawn for a sample, at most: none after one that leads to its item", 2, at_least(1)
    )
    num_beams: int = flag("ids named behind a thought, and kept per level", 5, at_least(1))
    temperature: float = flag("of thoughts; 0 = always the likeliest token", 0.8, NOT_NEGATIVE)
    top_p: float = flag(
        "of thoughts: share of the probability that the likeliest tokens hold who may be drawn",
        0.95,
        Rule("must be in (0, 1]", lambda share: 0 < share <= 1),
    )
    top_k: int | None = flag("of thoughts: likeliest tokens that may be drawn; None = all", 200, at_least(1))
    thought_tokens: int = flag("tokens of a thought, at most", 100, at_least(1))
    normalised_over: str = flag(
        "probabilities of a code: full = over the vocabulary, level = its level",
        "full",
        one_of("full", "level"),
    )
    eval_batch_size: int = flag("samples asked per GPU at a time", 256, at_least(1), alias=("batch_size",))
    seed: int = flag("of thoughts", 42, SEED)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(KeepThoughtsConfig, argv))
    config = fetched(config)
    refuse_without_table(config)
    from pixelrec_train.trainings import keep_thoughts

    keep_thoughts.main(config)
