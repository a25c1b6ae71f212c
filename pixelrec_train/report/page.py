"""report.html: a run on one page, made of the files in its directory and of nothing else."""

from pathlib import Path

from pixelrec_train.config.judging import BASELINES
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.report import OF_LABELS
from pixelrec_train.files import existing_directory, write_whole
from pixelrec_train.report.figures import test_section, who_section
from pixelrec_train.report.markup import h, page, section, table, tile
from pixelrec_train.report.parts import again_section, curves_section, speed_section, training_seconds
from pixelrec_train.report.run_files import json_of, read_run
from pixelrec_train.report.shown import map_section, users_section
from pixelrec_train.run.log import duration

FILE = "report.html"
HEADLINE = {
    "recall@10": "recall@10",
    "ndcg@10": "ndcg@10",
    "cold_recall@10": "recall@10, cold targets",
}


def write_report(directory, flag_name, path=None, compared=None):
    """Make the page of a run; returns where it lies.

    Args:
        path: None = report.html in the run.
        compared: where scripts/compare.py has left a table with this run and baselines; None = nowhere.

    Raises:
        InputError: no finished run lies there, or it is not in that table.
    """
    run = read_run(directory, flag_name)
    beside = beside_baselines(compared, run) if compared else ({}, {})
    path = Path(path or run.directory / FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, report(run, *beside))
    return path


def beside_baselines(directory, run):
    """({name: row} of the baselines in a comparison's table.json, {name: row} of this run's checkpoints)."""
    path = existing_directory(directory, "--compared") / "table.json"
    if not path.is_file():
        raise InputError(f"--compared {directory} holds no table.json: scripts/compare.py did not write it.")
    rows, here = json_of(path, dict), run.directory.resolve()
    others = {name: row["checkpoint"] for name, row in rows.items() if "checkpoint" in row}
    own = {name: rows[name] for name, at in others.items() if Path(at).resolve().is_relative_to(here)}
    if not own:
        judged = ", ".join(others.values()) or "none"
        raise InputError(
            f"--compared {directory} has no row of {run.directory}, but of {judged}. Compare it: "
            f"scripts/compare.py … --checkpoint {run.directory}/best_model."
        )
    users = {row["users"] for row in run.ranked.values()}
    found = {name: row for name, row in rows.items() if name in BASELINES and name not in run.ranked}
    if any({row["users"]} != users for row in found.values()):
        raise InputError(f"--compared {directory} judged other users than {run.directory}. Compare it anew.")
    return found, own


def report(run, baselines, compared):
    """The text of the page."""
    name, about = str(run.directory), None
    parts = {"curves": ("Curves", curves_section(run))}
    if run.ranked:
        about = h("p", run.notes[-1] if run.notes else None, class_="lead")
        parts = {"figures": ("Figures", test_section(run, baselines, compared))} | parts
        parts |= {
            "who": ("For whom", who_section(run)), "users": ("Ten users", users_section(run)),
            "map": ("Catalogue", map_section(run)),
        }  # fmt: skip
    else:
        parts = {"figures": ("Figures", losses_section(run))} | parts
    parts |= {"speed": ("Speed", speed_section(run)), "again": ("Again", again_section(run))}
    return page(
        f"{name} · report",
        h("p", "Report of a training run", class_="kicker"), h("h1", name), about,
        h("div", tiles(run), class_="tiles"),
        h("nav", [h("a", title, href=f"#{anchor}") for anchor, (title, _) in parts.items()]),
        [part for _, part in parts.values()],
        h("footer", f"Made from the files in {name}; scripts/report.py makes it again."),
    )  # fmt: skip


def tiles(run):
    """What a reader wants to know first."""
    if run.ranked:
        name, row = own_row(run)
        for metric, what in HEADLINE.items():
            if metric in row and (row["cold_users"] or not metric.startswith("cold")):
                low, high = row[f"{metric}_ci95"]
                yield tile(f"{100 * row[metric]:.2f} %", what, f"{name}, ± {50 * (high - low):.2f}")
    for name in () if run.ranked else ("loss", "valid_loss"):
        if values := [event[name] for event in run.events if name in event]:
            yield tile(f"{values[-1]:.4f}", name, "nats, the last")
    if run.steps:
        spent = f"{duration(training_seconds(run))} in them"
        yield tile(f"{run.steps[-1]['step']:,}", "optimizer steps", spent)


def own_row(run):
    """(name, row) of the run's own model: the one that files name, or the last of the table."""
    name = run.places.model if run.places else run.told.get("model")
    name = name if name in run.ranked else list(run.ranked)[-1]
    return name, run.ranked[name]


def losses_section(run):
    """The table of a run that ranks nothing."""
    names = [name for name in OF_LABELS if any(name in row for row in run.rows.values())]
    rows = [[name, *(f"{row[n]:.4f}" if n in row else "" for n in names)] for name, row in run.rows.items()]
    lead = "Of a run that ranks nothing: losses in nats, and shares of labels whose score was the highest."
    return section("figures", "Last figures", lead, h("div", table(["", *names], rows), class_="card"))
