"""Make samples, Parquet files of chats or documents, from two tables and semantic ids."""

from dataclasses import dataclass

from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.config.layouts import ONEREC_THINK, SAMPLES, LayoutFlags, check_layout
from pixelrec_train.config.tasks import FAMILIES, MIXES, SETS, TASKS, named, say_think
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    DISTINCT,
    FILE,
    MODEL,
    NEW_DIRECTORY,
    SEED,
    Rule,
    at_least,
    check_paths,
    flag,
    given,
    one_of,
    parse_args,
    replace,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched
from pixelrec_train.semantic_id.codecs import CODECS

GENERAL = "general"  # the one task of a mix that is not made here


@dataclass(frozen=True, kw_only=True)
class BuildSamplesConfig(DataFlags, TextFlags, LayoutFlags):
    """Make samples of one part of the split: OpenOneRec's, MiniOneRec's and OneRec-Think's tasks.

    --output_dir gets part-00000-of-00010.parquet and so on, file_list.json, dataset.json (for
    scripts/train_qwen3.py --dataset_config) and facts.json. Samples of train know training rows alone.
    With --layout it gets the files of another project in their place.
    """

    task: tuple[str, ...] = flag(
        "samples to make, several with commas (of --layout onerec_think all its own, unless told). "
        + "; ".join(f"{family}: {', '.join(tasks)}" for family, tasks in FAMILIES.items())
        + f". {' and '.join(SETS)} stand for those that theirs train on together",
        ("video_rec",),
        Rule("needs at least one task", bool),
        Rule("names tasks that --help lists", lambda tasks: all(task in TASKS for task in named(tasks))),
        DISTINCT,
    )
    split: str = flag(
        "train; valid or test = what is held out is the answer", "train", one_of("train", "valid", "test")
    )
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    output_dir: str = flag("directory to write", path=NEW_DIRECTORY)
    overwrite: bool = flag("replace what an earlier build wrote to output_dir", False)
    form: str | None = flag(
        "chat or segments (documents); None = each task's own, chat where it has one",
        None,
        one_of("chat", "segments"),
    )
    history: int | None = flag(
        "newest items of a history that are read; None = as each task has it: 10 of minionerec, all of "
        "onerec_think, 49 of reasoning, 512",
        None,
        at_least(1),
    )
    targets: int = flag(
        "training: items taken next, at most, and at most half of a user's (video_rec, label_cond_rec)",
        10,
        at_least(1),
    )
    samples_per_user: int | None = flag(
        "training samples of a user's rows, at most, newest first; no item is a target twice; None = as each "
        "task has it: all of minionerec, 1",
        None,
        at_least(1),
    )
    limit_type_c: int | None = flag("samples of all tasks type_c_…, at most, drawn", None, at_least(1))
    limit_type_e: int | None = flag("samples of all tasks type_e_…, at most, drawn", None, at_least(1))
    categories_key: str | None = flag(
        "the one of --text_keys with an item's categories; None = categories, or tag", None
    )
    category: str = flag('what all items are, as "office products", in words of minionerec', "")
    mix: str | None = flag(
        f"{' or '.join(MIXES)}: its tasks, each with its share in training "
        f"({', '.join(f'{task} {share}' for task, share in MIXES['onerec_think'].items())}), in place of "
        f"--task",
        None,
        one_of(*MIXES),
    )
    weights: tuple[str, ...] = flag(
        "a mix of your own, in place of --task: sid_prediction=0.7,item_caption=0.3", ()
    )
    general: str | None = flag("samples of text alone for a mix: a file, a directory or a list", None)
    label_column: str | None = flag(
        "column of --interaction_data with a label of each: for label_pred, label_cond_rec", None
    )
    positive_labels: tuple[str, ...] = flag(
        "labels that are a yes to label_pred",
        ("1", "1.0", "true", "True", "yes"),
        Rule("needs at least one label", bool),
    )
    preference_data: str | None = flag(
        "what users often take, in somebody's words, as MiniOneRec's file has it, JSON or JSON lines, for "
        "preference; None = words made from the texts",
        None,
        path=FILE,
    )
    thoughts: bool = flag("rec_reason: a thought, <think>…</think>, before the answer", True)
    rows_per_file: int = flag("samples of a Parquet file", 1000, at_least(1))
    codec: str | None = flag(
        f"spelling of ids: {', '.join(CODECS)}; None = that of --model_dir, or onerec", None, one_of(*CODECS)
    )
    model_dir: str | None = flag(
        "directory of scripts/expand_vocabulary.py, for dataset.json: tokenizer and ids of itemic tokens",
        None,
        path=MODEL,
    )
    max_length: int = flag("tokens of a pack, for dataset.json", 32768, at_least(2))
    add_think_pattern: bool | None = flag(
        "/think and /no_think behind questions, for dataset.json; None = with chats of OpenOneRec and with "
        "reasoned_prediction",
        None,
    )
    seed: int = flag("which paraphrase a sample has, and of what is drawn", 42, SEED)

    def __post_init__(self):
        super().__post_init__()
        if bool(self.mix) + bool(self.weights) > 1:
            raise InputError("--mix and --weights both say the shares of tasks. Leave one out.")
        shares = dict(MIXES[self.mix] if self.mix else map(share_of, self.weights))
        if len(shares) < len(self.weights):
            raise InputError(f"--weights names a task twice: {','.join(self.weights)}. Name each once.")
        if self.mix and not self.general:
            shares.pop(GENERAL, None)
        if (GENERAL in shares) != bool(self.general):
            raise InputError(
                "--general and the share of general in a mix go together: --general FILES --weights "
                "general=0.1,… (or --mix)."
            )
        tasks = tuple(task for task in named(shares or self.task) if task != GENERAL)
        self.set(task=tasks, shares=shares)

    @property
    def has(self):
        """What is there of what tasks need."""
        return {need for need, there in (("texts", self.text_data), ("labels", self.label_column)) if there}

    @property
    def key_of_categories(self):
        return self.categories_key or ("categories" if "categories" in self.text_keys else "tag")

    @property
    def texts_by_name(self):
        """The texts that are read, with categories under that name."""
        return ["categories" if key == self.key_of_categories else key for key in self.text_keys]

    @property
    def limits(self):
        """{group of tasks: samples, at most}"""
        limits = {"type_c": self.limit_type_c, "type_e": self.limit_type_e}
        return {group: most for group, most in limits.items() if most}

    @property
    def thinks(self):
        """Whether questions are to say /think or /no_think."""
        if self.add_think_pattern is not None:
            return self.add_think_pattern
        return self.form != "segments" and say_think(self.task)


def share_of(text):
    """(task, share) of "task=0.7"."""
    task, _, share = text.partition("=")
    try:
        number = float(share)
    except ValueError:
        number = -1
    if task not in (*TASKS, GENERAL) or not 0 < number < float("inf"):
        raise InputError(
            f"--weights names {text!r}; it must name tasks with their shares, as sid_prediction=0.7 (tasks: "
            f"see --help, and {GENERAL})."
        )
    return task, number


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(BuildSamplesConfig, argv))
    config = fetched(config)
    if config.layout == ONEREC_THINK and not {"task", "mix", "weights"} & given(config):
        config = replace(config, task=(ONEREC_THINK,))
    check_layout(config)
    check_used(config)
    from pixelrec_train.trainings import build_samples, their_files

    (build_samples if config.layout == SAMPLES else their_files).main(config)


def check_used(config):
    """Raises InputError where a flag that was given has no task to serve."""
    of_tasks = {
        "positive_labels": ("label_pred",), "thoughts": ("rec_reason",),
        "preference_data": ("preference",), "label_column": ("label_pred", "label_cond_rec"),
        "category": tuple(task for task in FAMILIES["minionerec"] if task.startswith("title_history")),
        **{f"limit_{group}": tuple(task for task in TASKS if task.startswith(group))
           for group in ("type_c", "type_e")},
    }  # fmt: skip
    for name, tasks in of_tasks.items():
        if name in given(config) and not set(tasks) & set(config.task):
            said = " and ".join(tasks) if len(tasks) < 3 else f"tasks such as {tasks[0]}"
            raise InputError(f"--{name} is for {said}, which --task does not name. Leave it out.")
    if config.categories_key and config.categories_key not in config.text_keys:
        raise InputError(
            f"--categories_key {config.categories_key} is not among --text_keys "
            f"{','.join(config.text_keys)}. Name it there too."
        )
