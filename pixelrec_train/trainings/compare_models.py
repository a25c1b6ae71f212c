"""The table a result has to stand in: the same users and rules for baselines and any checkpoints."""

from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.config.judging import BASELINES
from pixelrec_train.data.inputs import read_interactions, split_of
from pixelrec_train.data.item_fields import read_fields
from pixelrec_train.engine.session import on_all_ranks
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.faiss_index import way_of_search
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.report import (
    JUDGED_BY,
    candidates,
    counted_otherwise,
    lead,
    table_rows,
    write_table,
)
from pixelrec_train.files import existing_file, possible_directory
from pixelrec_train.recommend.blend_file import blend_file, read_blend
from pixelrec_train.recommend.checkpoints import check_same_split, data_files
from pixelrec_train.recommend.parts import (
    COLD,
    UNTRAINED,
    Parts,
    check_hybrid,
    checkpoints_of,
    is_blend,
    loader,
    named_parts,
)
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.checkpoints import run_of
from pixelrec_train.run.log import say
from pixelrec_train.trainings import blending
from pixelrec_train.trainings.baselines import make_baselines, untrained
from pixelrec_train.trainings.train_sequential import MODELS, deepspeed_settings


def main(config):
    """config: CompareConfig."""
    on_all_ranks(config, lambda: compare(config), can_resume=False)


def compare(config):
    existing_file(config.interaction_data, "--interaction_data")
    existing_file(config.text_data, "--text_data")
    possible_directory(config.cache_dir, "--cache_dir")
    deepspeed_settings(config)
    check_hybrid(config.hybrid, *config.checkpoint)
    checkpoints = []
    for spec in (*config.checkpoint, *filter(None, [config.hybrid])):
        if spec in BASELINES:
            raise InputError(
                f"--checkpoint {spec} is a baseline, see --baselines. Leave it out, or blend it: A+B."
            )
        for part in checkpoints_of(parts_of(spec), "--checkpoint", (*UNTRAINED, *trained(config))):
            check_same_split(part, "--checkpoint", config)
            checkpoints.append(part)
    for name in trained(config):
        run_directory.check_free(Path(config.output_dir) / name, config.overwrite)
    if config.checkpoint:
        way_of_search(config.retrieval)
    data = read_interactions(config, with_times=True)  # a checkpoint may read them
    split = split_of(data, config, config.max_seq_length)
    held_out = split.judged(config.split)
    fields, _ = read_fields(data.item_ids, config)
    for line in (f"data: {data.summary()}", *data.notes):
        say(line)

    files = data_files(config, text_data=config.text_data, allow_missing_text=config.allow_missing_text)
    texts, notes = [" ".join(values or ()) for values in fields], []
    makers = untrained(config, data, split, lambda: texts, notes)
    parts = Parts(makers, loader(files, config.trust_remote_code, config))
    for checkpoint in checkpoints:  # one that cannot be read is found before minutes of training
        say(f"checkpoint: {checkpoint}")
        parts[checkpoint]
    baselines = make_baselines(config, data, split, parts, notes)

    def blended(names, hybrid=False):
        return blending.chosen_by_validation(names, parts, data, split, config, vars(config), hybrid)

    models = {}
    for spec, name in names(config.checkpoint).items():
        if file := blend_file(spec):
            models[name] = blending.as_written(read_blend(file, "--checkpoint"), parts, data, config)
        else:
            models[name] = blended(named_parts(spec)) if is_blend(spec) else parts[spec]
        if config.hybrid and is_generative(spec):
            models[f"{name}_hybrid"] = blended([spec, *named_parts(config.hybrid)], hybrid=True)
    blends = {name: one for name, one in (baselines | models).items() if isinstance(one, blending.Blended)}
    judged = [
        {name: judge(blends[name].recommender if name in blends else one, held_out, config)
         for name, one in rows.items()}
        for rows in (baselines, models)
    ]  # fmt: skip
    if distributed.rank() == 0:
        report(config, split, *judged, notes, blends)
    distributed.barrier()


def report(config, split, baselines, models, notes, blends):
    """Table, and for every model its lead over the strongest baseline, on screen and on disk.

    baselines, models: {name: Judged}; notes: lines of how the baselines were made; blends: {name:
    Blended} of those that are any.
    """
    cold = split.popularity[getattr(split, config.split).target] == 0
    rows = table_rows(baselines | models, cold, config.topk)
    strongest = {metric: max(baselines, key=lambda name: rows[name][metric]) for metric in JUDGED_BY}
    lines = [*notes, to_beat(strongest, rows)]
    for metric, best in strongest.items():
        for name in models:
            lines.append(lead(rows, baselines | models, name, best, metric, config.topk))
    lines += counted_otherwise(models, config.topk)
    for checkpoint, name in names(config.checkpoint).items():
        rows[name]["checkpoint"] = checkpoint
        lines.append(f"{name} is {checkpoint}")
    for name, blend in blends.items():
        rows[name]["weights"] = blend.file.parts
        directory = Path(config.output_dir) / "blends" / name.replace("/", "_")
        blending.write(directory, blend, split)
        lines.append(f"{name} = {blend.note}; in {directory}/")
    note = (
        f"{config.split} split of {config.interaction_data} ({split.origin}), "
        f"{candidates(len(split.train_counts), config)}; never seen in training = nobody took it in "
        f"training; ± is half the width of the 95 % bootstrap interval; commit {run_directory.commit()}."
    )
    note = "\n".join([*lines, note])
    print(f"\n{write_table(config.output_dir, rows, config.topk, note)}\n{note}\n")
    files = ["table.md", "table.json", *["blends/"] * bool(blends), *(f"{name}/" for name in trained(config))]
    print(f"Files in {config.output_dir}/: {', '.join(files)}")


def to_beat(strongest, rows):
    """strongest: {metric: name of a row}"""
    each = [f"{name} by {metric} ({100 * rows[name][metric]:.2f})" for metric, name in strongest.items()]
    return f"to beat: {', '.join(each)}"


def trained(config):
    """Names of the baselines that have a run directory."""
    return [name for name in config.baselines if name in MODELS]


def names(checkpoints):
    """{checkpoint: name of its run}; the path itself where that name is taken."""
    runs = {spec: "+".join(map(run_name, named_parts(spec))) for spec in checkpoints}
    taken = [*runs.values(), *BASELINES]
    return {c: name if taken.count(name) == 1 else c for c, name in runs.items()}


def run_name(part):
    if part in (*BASELINES, COLD):
        return part
    path = (blend_file(part) or Path(part)).resolve()
    return path.parent.name if path.suffix == ".json" else run_of(path).name


def parts_of(spec):
    """Names and paths of what a --checkpoint, a blend or not, is made of."""
    file = blend_file(spec)
    return list(read_blend(file, "--checkpoint").parts) if file else named_parts(spec)
