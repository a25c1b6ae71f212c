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
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.files import existing_file, possible_directory
from pixelrec_train.libraries import import_faiss
from pixelrec_train.recommend.checkpoints import check_same_split, data_files, load, load_generative
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.checkpoints import run_of
from pixelrec_train.run.log import say
from pixelrec_train.trainings.baselines import make_baselines
from pixelrec_train.trainings.train_sequential import MODELS, deepspeed_settings


def main(config):
    """config: CompareConfig."""
    on_all_ranks(config, lambda: compare(config), can_resume=False)


def compare(config):
    existing_file(config.interaction_data, "--interaction_data")
    existing_file(config.text_data, "--text_data")
    possible_directory(config.cache_dir, "--cache_dir")
    deepspeed_settings(config)
    for checkpoint in config.checkpoint:
        for part in joined(checkpoint):
            check_same_split(part, "--checkpoint", config)
            if is_generative(part) and part != checkpoint:
                raise InputError(f"--checkpoint {checkpoint}: a generative model has no vectors to join.")
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

    models = {}
    for checkpoint, name in names(config.checkpoint).items():
        say(f"checkpoint: {checkpoint}")
        models[name] = judge(recommender(checkpoint, config), held_out, config)
    # Behind the checkpoints: one that cannot be read is found before minutes of training.
    texts = [" ".join(values or ()) for values in fields]
    baselines, notes = make_baselines(config, data, split, texts)
    baselines = {name: judge(baseline, held_out, config) for name, baseline in baselines.items()}
    if distributed.rank() == 0:
        report(config, split, baselines, models, notes)
    distributed.barrier()


def recommender(checkpoint, config):
    files = data_files(config, text_data=config.text_data, allow_missing_text=config.allow_missing_text)
    if is_generative(checkpoint):
        return load_generative(checkpoint, files, config.trust_remote_code).recommender
    parts = (load(part, files, config.trust_remote_code, config) for part in joined(checkpoint))
    return TwoTower.joined([part.recommender for part in parts])


def report(config, split, baselines, models, notes):
    """Table, and for every model its lead over the strongest baseline, on screen and on disk.

    baselines, models: {name: Judged}; notes: lines of how the baselines were made.
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
    note = (
        f"{config.split} split of {config.interaction_data} ({split.origin}), "
        f"{candidates(len(split.train_counts), config)}; never seen in training = nobody took it in "
        f"training; ± is half the width of the 95 % bootstrap interval; commit {run_directory.commit()}."
    )
    note = "\n".join([*lines, note])
    print(f"\n{write_table(config.output_dir, rows, config.topk, note)}\n{note}\n")
    files = ["table.md", "table.json", *(f"{name}/" for name in trained(config))]
    print(f"Files in {config.output_dir}/: {', '.join(files)}")


def to_beat(strongest, rows):
    """strongest: {metric: name of a row}"""
    each = [f"{name} by {metric} ({100 * rows[name][metric]:.2f})" for metric, name in strongest.items()]
    return f"to beat: {', '.join(each)}"


def trained(config):
    """Names of the baselines that have a run directory."""
    return [name for name in config.baselines if name in MODELS]


def joined(checkpoint):
    """The parts of A+B; a path with a plus in it stays one."""
    return [checkpoint] if Path(checkpoint).exists() else checkpoint.split("+")


def names(checkpoints):
    """{checkpoint: name of its run}; the path itself where that name is taken."""
    runs = {c: "+".join(run_of(Path(part).resolve()).name for part in joined(c)) for c in checkpoints}
    taken = [*runs.values(), *BASELINES]
    return {c: name if taken.count(name) == 1 else c for c, name in runs.items()}
