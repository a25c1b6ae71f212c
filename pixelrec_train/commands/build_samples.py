"""Make OpenOneRec's samples, Parquet files of chats or documents, from two tables and semantic ids."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.errors import InputError
from pixelrec_train.files import replaceable_directory
from pixelrec_train.flags import (
    DIRECTORY,
    DISTINCT,
    FILE,
    NEW_DIRECTORY,
    SEED,
    Rule,
    at_least,
    check_paths,
    flag,
    given,
    one_of,
    parse_args,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.semantic_id.codecs import CODECS

TASKS = ("video_rec", "item_understand", "user_profile", "label_pred", "label_cond_rec", "rec_reason")
FACTS, DATASET = "facts.json", "dataset.json"


@dataclass(frozen=True, kw_only=True)
class BuildSamplesConfig(DataFlags, TextFlags):
    """Make OpenOneRec's samples of one part of the split, under the names of its benchmark, RecIF.

    --output_dir gets part-00000-of-00010.parquet and so on, file_list.json, dataset.json (for
    scripts/train_qwen3.py --dataset_config) and facts.json. Samples of train know training rows alone.
    """

    task: tuple[str, ...] = flag(
        f"samples to make, several with commas: {', '.join(TASKS)}",
        ("video_rec",),
        Rule("needs at least one task", bool),
        Rule(f"names tasks of {', '.join(TASKS)}", lambda tasks: all(task in TASKS for task in tasks)),
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
    history: int = flag("newest items of a history that are read", 512, at_least(1))
    targets: int = flag(
        "training: items taken next, at most, and at most half of a user's (video_rec, label_cond_rec)",
        10,
        at_least(1),
    )
    samples_per_user: int = flag(
        "training samples of a user's rows, at most, newest first; no item is a target twice",
        1,
        at_least(1),
    )
    label_column: str | None = flag(
        "column of --interaction_data with a label of each: for label_pred, label_cond_rec", None
    )
    positive_labels: tuple[str, ...] = flag(
        "labels that are a yes to label_pred",
        ("1", "1.0", "true", "True", "yes"),
        Rule("needs at least one label", bool),
    )
    thoughts: bool = flag("rec_reason: a thought, <think>…</think>, before the answer", True)
    rows_per_file: int = flag("samples of a Parquet file", 1000, at_least(1))
    codec: str | None = flag(
        f"spelling of ids: {', '.join(CODECS)}; None = that of --model_dir, or onerec", None, one_of(*CODECS)
    )
    model_dir: str | None = flag(
        "directory of scripts/expand_vocabulary.py, for dataset.json: tokenizer and ids of itemic tokens",
        None,
        path=DIRECTORY,
    )
    max_length: int = flag("tokens of a pack, for dataset.json", 32768, at_least(2))
    add_think_pattern: bool | None = flag(
        "/think and /no_think behind questions, for dataset.json; None = where there are chats", None
    )
    seed: int = flag("which paraphrase a sample has", 42, SEED)

    @property
    def has(self):
        """What is there of what tasks need."""
        return {need for need, there in (("texts", self.text_data), ("labels", self.label_column)) if there}


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(BuildSamplesConfig, argv))
    check_free(config)
    from pixelrec_train.data.views.build import views_of

    views = views_of(config.task, config.split, config.form, config.has)
    check_used(config, views)
    itemic = itemic_of(config)
    from pixelrec_train.data.views import build
    from pixelrec_train.data.views.view import Asked

    asked = Asked(
        "", config.history, config.targets, config.samples_per_user, config.thoughts,
        frozenset(config.positive_labels),
    )  # fmt: skip
    codec = config.codec or (itemic.codec if itemic else "onerec")
    plan = build.plan(
        views, asked, config, config.label_column, config.semantic_ids, codec, config.split, config.seed
    )
    facts = write(config, plan, itemic)
    print(*facts["notes"], sep="\n", end="\n" if facts["notes"] else "")
    for task, count in facts["samples"].items():
        print(f"{task:<16}{count:>12,} samples of {config.split}, {facts['forms'][task]}")
    for left_out in facts["left_out"]:
        print(f"{left_out['task']:<16}{left_out['samples']:>12,} left out: {left_out['why']}")
    print(f"made {config.output_dir}: {facts['files']:,} files, {DATASET} and {FACTS}")


def check_free(config):
    """Raises InputError where the output directory holds something that is not an earlier build."""
    output, marks = Path(config.output_dir), (FACTS, DATASET)
    if not replaceable_directory(output, "--output_dir", marks, "build", "samples", config.overwrite):
        return
    for name in ("interaction_data", "valid_data", "test_data", "split_data", "text_data", "semantic_ids",
                 "cache_dir", "model_dir"):  # fmt: skip
        read = getattr(config, name)
        if read and Path(read).resolve().is_relative_to(output.resolve()):
            raise InputError(
                f"--{name} {read} lies in --output_dir {output}, which is replaced. Choose another."
            )


def check_used(config, views):
    """Raises InputError where a flag that was given has no task to serve."""
    tasks = {view.task for view, _ in views}
    if config.label_column and not any("labels" in view.needs for view, _ in views):
        raise InputError(
            f"--label_column is for label_pred and label_cond_rec, but --task is {','.join(config.task)}."
        )
    for name, task in (("positive_labels", "label_pred"), ("thoughts", "rec_reason")):
        if name in given(config) and task not in tasks:
            raise InputError(f"--{name} is for {task}, which --task does not name. Leave it out.")


def itemic_of(config):
    """The ItemicVocabulary of --model_dir, or None.

    Raises:
        InputError: it has none, or one for other ids.
    """
    if not config.model_dir:
        return None
    from pixelrec_train.model.vocabulary import META_FILE, check_codes, read
    from pixelrec_train.semantic_id.codes import SemanticIds

    vocabulary, _ = read(Path(config.model_dir) / META_FILE, "--model_dir")
    found = SemanticIds.load(config.semantic_ids)
    check_codes(vocabulary, f"--model_dir {config.model_dir}", found, config.semantic_ids)
    if config.codec not in (None, vocabulary.codec):
        raise InputError(
            f"--codec is {config.codec}, but the vocabulary of --model_dir {config.model_dir} is "
            f"{vocabulary.codec}. Leave out --codec."
        )
    return vocabulary


def write(config, plan, itemic):
    """Make the directory, whole or not at all; returns what facts.json holds."""
    from pixelrec_train.data.samples.writing import dataset_config, write_samples
    from pixelrec_train.data.views.build import counters, summary
    from pixelrec_train.engine.manifest import remove
    from pixelrec_train.files import write_json

    output, (counts, left_out) = Path(config.output_dir), counters()
    samples = plan.samples(counts, left_out)
    if (first := next(samples, None)) is None:
        why = "; ".join(f"{count:,} {why}" for (_, why), count in left_out.items())
        raise InputError(
            f"--task {','.join(config.task)} of {config.split} gives no sample"
            f"{f' (left out: {why})' if why else ''}. Choose other tasks, or another split."
        )
    partial = output.with_name(f"{output.name}.partial")
    remove(partial)
    try:
        partial.mkdir(parents=True)
        names = write_samples(partial, itertools.chain([first], samples), config.rows_per_file)
        facts = summary(plan, counts, left_out) | {"files": len(names), "seed": config.seed}
        think = config.add_think_pattern
        think = "chat" in facts["forms"].values() if think is None else think
        settings = dataset_config(config.max_length, think, config.model_dir, itemic)
        write_json(partial / DATASET, settings)
        write_json(partial / FACTS, facts)
        remove(output)
        os.replace(partial, output)
    finally:
        remove(partial)
    return facts
