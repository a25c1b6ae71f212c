"""The table a result has to stand in: the same users and rules for baselines and any checkpoints."""

from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.config.judging import BASELINES
from pixelrec_train.data.inputs import read_interactions, split_of
from pixelrec_train.data.item_fields import read_fields
from pixelrec_train.engine.session import on_all_ranks
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.metrics import paired_p
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.report import (
    JUDGED_BY,
    candidates,
    counted_otherwise,
    table_rows,
    write_table,
)
from pixelrec_train.files import existing_file, possible_directory
from pixelrec_train.libraries import import_faiss
from pixelrec_train.recommend.blend_file import blend_file, read_blend
from pixelrec_train.recommend.checkpoints import check_same_split, data_files
from pixelrec_train.recommend.parts import (
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
from pixelrec_train.trainings.baselines import make_baselines
from pixelrec_train.trainings.train_sequential import MODELS, deepspeed_settings

KNN_TFIDF = "knn_tfidf"


def main(config):
    """config: CompareConfig."""
    on_all_ranks(config, lambda: compare(config), can_resume=False)


def compare(config):
    existing_file(config.interaction_data, "--interaction_data")
    existing_file(config.text_data, "--text_data")
    possible_directory(config.cache_dir, "--cache_dir")
    deepspeed_settings(config)
    checkpoints = []
    check_hybrid(config.hybrid, *config.checkpoint)
    for spec in (*config.checkpoint, *((config.hybrid,) if config.hybrid else ())):
        if spec in BASELINES:
            raise InputError(
                f"--checkpoint {spec} is a baseline, see --baselines. Leave it out, or blend it: A+B."
            )
        file = blend_file(spec)
        parts = list(read_blend(file, "--checkpoint").parts) if file else named_parts(spec)
        for part in checkpoints_of(parts, "--checkpoint", scoring(config)):
            check_same_split(part, "--checkpoint", config)
            checkpoints.append(part)
    for name in trained(config):
        run_directory.check_free(Path(config.output_dir) / name, config.overwrite)
    if config.retrieval == "faiss" and config.checkpoint:
        import_faiss()
    data = read_interactions(config, with_times=True)  # a checkpoint may read them
    split = split_of(data, config, config.max_seq_length)
    held_out = split.judged(config.split)
    fields, _ = read_fields(data.item_ids, config)
    for line in (f"data: {data.summary()}", *data.notes):
        say(line)

    files = data_files(config, text_data=config.text_data, allow_missing_text=config.allow_missing_text)
    texts = [" ".join(values or ()) for values in fields]
    parts = Parts(data, split, lambda: texts, loader(files, config.trust_remote_code, config))
    for checkpoint in checkpoints:  # before anything is trained: a damaged one is found at once
        say(f"checkpoint: {checkpoint}")
        parts[checkpoint]
    rows, notes = make_baselines(config, data, split, texts)
    for name, baseline in rows.items():
        parts.add(name, baseline)

    def blended(names, hybrid=False):
        return blending.chosen_by_validation(names, parts, data, split, config, vars(config), hybrid)

    blends = {}
    if KNN_TFIDF in config.baselines:
        blends[KNN_TFIDF] = blended(["item_knn", "tfidf"])
        rows[KNN_TFIDF] = blends[KNN_TFIDF].recommender
    baselines = {name: judge(rows[name], held_out, config) for name in config.baselines if name in rows}
    models = {}
    for spec, name in names(config.checkpoint).items():
        if file := blend_file(spec):
            blends[name] = blending.as_written(read_blend(file, "--checkpoint"), parts, data, config)
        elif is_blend(spec):
            blends[name] = blended(named_parts(spec))
        ranking = blends[name].recommender if name in blends else parts[spec]
        models[name] = judge(ranking, held_out, config)
        if config.hybrid and is_generative(spec):
            row = f"{name}, hybrid"
            blends[row] = blended([spec, *named_parts(config.hybrid)], hybrid=True)
            models[row] = judge(blends[row].recommender, held_out, config)
    if distributed.rank() == 0:
        report(config, split, baselines, models, blends, notes)
    distributed.barrier()


def report(config, split, baselines, models, blends, notes):
    """Table, and for every model its lead over the strongest baseline, on screen and on disk.

    Args:
        baselines, models: {name: Judged}
        blends: {name: Blended} of those that are any.
        notes: lines of how the baselines were made.
    """
    cold = split.popularity[getattr(split, config.split).target] == 0
    rows = table_rows(baselines | models, cold, config.topk)
    strongest = {metric: max(baselines, key=lambda name: rows[name][metric]) for metric in JUDGED_BY}
    lines = [*notes, to_beat(strongest, rows)]
    for metric, best in strongest.items():
        for name, model in models.items():
            change = rows[name][metric] / max(rows[best][metric], 1e-12) - 1
            p = paired_p(model.places, baselines[best].places, config.topk)[metric]
            rows[name][f"{metric}_against"] = {"baseline": best, "change": change, "p": p}
            lines.append(f"{name}: {metric} {change:+.1%} against {best}, p = {p:.4f} (paired bootstrap)")
    lines += counted_otherwise(models, config.topk)
    for checkpoint, name in names(config.checkpoint).items():
        rows[name]["checkpoint"] = checkpoint
        lines.append(f"{name} is {checkpoint}")
    for name, blended in blends.items():
        rows[name]["weights"] = blended.file.parts
        directory = Path(config.output_dir) / "blends" / name.replace("/", "_").replace(", ", "_")
        blending.write(directory, blended, split)
        lines.append(f"{name} = {blended.note}; in {directory}/")
    note = (
        f"{config.split} split of {config.interaction_data} ({split.origin}), "
        f"{candidates(len(split.train_counts), config)}; never seen in training = nobody took it in "
        f"training; ± is half the width of the 95 % bootstrap interval; commit {run_directory.commit()}."
    )
    note = "\n".join([*lines, note])
    print(f"\n{write_table(config.output_dir, rows, config.topk, note)}\n{note}\n")
    files = ["table.md", "table.json", "blends/", *(f"{name}/" for name in trained(config))]
    print(f"Files in {config.output_dir}/: {', '.join(files)}")


def to_beat(strongest, rows):
    """strongest: {metric: name of a row}"""
    each = [f"{name} by {metric} ({100 * rows[name][metric]:.2f})" for metric, name in strongest.items()]
    return f"to beat: {', '.join(each)}"


def trained(config):
    """Names of the baselines that have a run directory."""
    return [name for name in config.baselines if name in MODELS]


def scoring(config):
    """Names of the parts that a blend may have besides checkpoints."""
    return (*UNTRAINED, *(name for name in config.baselines if name not in (*UNTRAINED, KNN_TFIDF)))


def names(checkpoints):
    """{checkpoint: name of its run}; the path itself where that name is taken."""
    runs = {spec: "+".join(map(run_name, named_parts(spec))) for spec in checkpoints}
    taken = [*runs.values(), *BASELINES]
    return {c: name if taken.count(name) == 1 else c for c, name in runs.items()}


def run_name(part):
    if part in (*UNTRAINED, *BASELINES):
        return part
    path = (blend_file(part) or Path(part)).resolve()
    return path.parent.name if path.suffix == ".json" else run_of(path).name
