"""Write pairs of items of which the first is better, for scripts/train_dpo.py, from interactions."""

from dataclasses import dataclass

from pixelrec_train.config import DataFlags, DecodingFlags, LaunchFlags, TrustFlags
from pixelrec_train.config.preferences import KINDS
from pixelrec_train.config.samples import HISTORY, QuestionFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    DISTINCT,
    FILE,
    MODEL,
    NEW_DIRECTORY,
    SEED,
    SHARE,
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
class BuildPreferencesConfig(DataFlags, QuestionFlags, DecodingFlags, TrustFlags, LaunchFlags):
    """Write pairs of items of which the first is better, for scripts/train_dpo.py, from interactions.

    --output_dir gets pairs.jsonl, held_out_pairs.jsonl (of other users) and facts.json. A row: prompt, as in
    evaluation; chosen: the item taken next; rejected: another, which is not in the history; source: where
    that comes from. With --prompt history they are texts: train with --as_text.
    """

    model_dir: str = flag("the model that is to learn from them: llm/ of a checkpoint", path=MODEL)
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    output_dir: str = flag("directory to write", path=NEW_DIRECTORY)
    overwrite: bool = flag("replace what an earlier call wrote to output_dir", False)
    prompt: str = flag(
        "how users are asked: history = ids alone; chat = that of --question",
        "history",
        one_of("history", "chat"),
    )
    history: int | None = flag(HISTORY, None, at_least(1))
    rejected: tuple[str, ...] = flag(
        "in turn: beams = what the model ranks above the target; popular = drawn by how often it was taken; "
        "prefix = begins with the same codes",
        KINDS,
        Rule(f"names some of {', '.join(KINDS)}", lambda names: names and set(names) <= set(KINDS)),
        DISTINCT,
    )
    pairs_per_prompt: int = flag("pairs of a prompt, at most", 3, at_least(1))
    prompts_per_user: int | None = flag(
        "newest items of each training history that are asked for; None = all", None, at_least(1)
    )
    valid_share: float = flag("share of the users whose pairs are held out, in [0, 1)", 0.05, SHARE)
    num_beams: int = flag("beams: ids that the model names", 20, at_least(1))
    seed: int = flag("of what is drawn, and of the words of chats", 42, SEED)

    def __post_init__(self):
        super().__post_init__()
        self.check_question(self.prompt == "chat")
        if self.keep_seen:
            raise InputError("--keep_seen judges lists; pairs have no item of the history. Leave it out.")


@speak_plainly
def main(argv=None):
    config = fetched(check_paths(parse_args(BuildPreferencesConfig, argv)))
    from pixelrec_train.trainings import build_preferences

    build_preferences.main(config)
