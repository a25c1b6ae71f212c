"""From two tables and semantic ids to a directory of samples, whole or not at all."""

import itertools
from pathlib import Path

from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.writing import dataset_config, write_samples
from pixelrec_train.data.views import build, preferences
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.data.views.view import Asked
from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, model_files, replaceable_directory, write_json
from pixelrec_train.model.vocabulary import META_FILE, check_codes, read
from pixelrec_train.semantic_id.codes import SemanticIds

FACTS, DATASET = "facts.json", "dataset.json"
READ = (
    "interaction_data", "valid_data", "test_data", "split_data", "text_data", "semantic_ids", "cache_dir",
    "model_dir", "general", "preference_data",
)  # fmt: skip


def main(config):
    """config: BuildSamplesConfig."""
    check_free(config)
    views, itemic = views_of(config), itemic_of(config)
    plan = plan_of(config, views, config.codec or (itemic.codec if itemic else "onerec"))
    facts = write(config, plan, itemic)
    print(*lines(facts, config.split), sep="\n")
    print(f"split: {facts['origin']}")
    print(f"made {config.output_dir}: {facts['files']:,} files, {DATASET} and {FACTS}")


def lines(facts, split):
    """Yields what a person reads of samples."""
    yield from facts["notes"]
    width = max(map(len, facts["samples"])) + 1
    for task, count in facts["samples"].items():
        yield f"{task:<{width}}{count:>12,} samples of {split}, {facts['forms'][task]}"
    for left_out in facts["left_out"]:
        yield f"{left_out['task']:<{width}}{left_out['samples']:>12,} left out: {left_out['why']}"


def views_of(config):
    """[(View, form)] of --task."""
    instead = {}
    if config.preference_data:
        found = preferences.read(config.preference_data)
        instead["preference"] = preferences.view_of(found, VIEWS["preference"])
    asked = config.task, config.split, config.form
    return build.views_of(*asked, config.has, config.texts_by_name, instead)


def plan_of(config, views, codec, also=frozenset()):
    """Plan of what --task asks for, its ids in the spelling of this name; also: as build.plan has it."""
    asked = Asked(
        None, config.history, config.targets, config.samples_per_user, config.thoughts,
        frozenset(config.positive_labels), config.seed,
    )  # fmt: skip
    return build.plan(
        views, asked, config, config.label_column, config.semantic_ids, codec, config.split, config.limits,
        also, categories_key=config.key_of_categories, category=config.category,
    )  # fmt: skip


def check_free(config, marks=(FACTS, DATASET), holds="samples"):
    """Raises InputError where the output directory holds something that is not an earlier build.

    Args:
        marks, holds: files that every build leaves there, and what it makes, in words.
    """
    output = Path(config.output_dir)
    if config.general:
        sources_of(config.general, "--general")
    if not replaceable_directory(output, "--output_dir", marks, "build", holds, config.overwrite):
        return
    for name in READ:
        read = getattr(config, name)
        if read and Path(read).resolve().is_relative_to(output.resolve()):
            raise InputError(
                f"--{name} {read} lies in --output_dir {output}, which is replaced. Choose another."
            )


def itemic_of(config):
    """The ItemicVocabulary of --model_dir, or None.

    Raises:
        InputError: it has none, or one for other ids.
    """
    if not config.model_dir:
        return None
    vocabulary, _ = read(model_files(config.model_dir) / META_FILE, "--model_dir")
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
    counts, left_out = build.counters()
    samples = some(config, plan, counts, left_out)

    def make(directory):
        settings = dataset_config(config.max_length, config.thinks, config.model_dir, itemic)
        if config.shares:
            files, settings["sources"] = write_mix(directory, samples, config)
        else:
            files = len(write_samples(directory, samples, config.rows_per_file))
        facts = build.summary(plan, counts, left_out) | {"files": files, "seed": config.seed}
        write_json(directory / DATASET, settings)
        write_json(directory / FACTS, facts)
        return facts

    return made_whole(config.output_dir, make)


def some(config, plan, counts, left_out):
    """The samples of a Plan, or an InputError where there is none."""
    samples = plan.samples(counts, left_out)
    if (first := next(samples, None)) is None:
        why = "; ".join(f"{count:,} {why}" for (_, why), count in left_out.items())
        raise InputError(
            f"--task {','.join(config.task)} of {config.split} gives no sample"
            f"{f' (left out: {why})' if why else ''}. Choose other tasks, or another split."
        )
    return itertools.chain([first], samples)


def write_mix(directory, samples, config):
    """A folder for each task.

    Returns:
        (number of files, `sources` of dataset.json: each folder with its share)
    """
    files, sources = 0, []
    for task, own in itertools.groupby(samples, lambda sample_and_facts: sample_and_facts[0].source):
        (directory / task).mkdir()
        files += len(write_samples(directory / task, own, config.rows_per_file))
        sources.append({"path": task, "weight": config.shares[task]})
    if missing := config.shares.keys() - {source["path"] for source in sources} - {"general"}:
        raise InputError(
            f"the mix has {', '.join(sorted(missing))}, of which there is no sample. Leave it out, or say "
            f"the shares of the others with --weights."
        )
    if config.general:
        general = config.general if "*" in config.general else str(Path(config.general).resolve())
        sources.append({"path": general, "weight": config.shares["general"]})
    return files, sources
