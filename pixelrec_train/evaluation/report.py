"""What a run leaves for its reader: a table on screen and on disk, and a picture of its curves."""

import json
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.engine.manifest import BEST
from pixelrec_train.evaluation import generation
from pixelrec_train.evaluation.metrics import paired_p, table_row
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import Popularity
from pixelrec_train.files import write_json
from pixelrec_train.run import model_card

SHOWN = ("recall", "ndcg")
JUDGED_BY = ("recall@10", "ndcg@10")
ONE_TARGET = "a user has one target, so recall@k is hit@k"
OF_LABELS = (
    "reward", "valid_reward", "loss", "valid_loss", "itemic_loss", "text_loss", "itemic_top1", "text_top1",
    *JUDGED_BY,
)  # fmt: skip


def table_rows(judged, is_cold, topk):
    """Rows of a table: the figures of each of {model: Judged}, and whatever else it counts.

    is_cold: [E] bool, whose targets were never seen in training.
    """
    return {name: table_row(one.places, is_cold, topk) | one.counts for name, one in judged.items()}


def beside_popularity(judged, held_out, split, ranking):
    """{name: Judged} with what most people took in front. All ranks call it."""
    return {"popularity": judge(Popularity(split.popularity), held_out, ranking)} | judged


def counted_otherwise(judged, topk):
    """A line for each model that other_counts has counted, too."""
    return [
        f"{name}, {generation.counted_otherwise(one.counts, topk)}"
        for name, one in judged.items()
        if f"sid_recall@{max(topk)}" in one.counts
    ]


def candidates(num_items, ranking):
    """What a user's target competes with, in words."""
    return f"{num_items:,} candidates, {'seen items left in' if ranking.keep_seen else 'seen items removed'}"


def with_hits(row):
    """A row of a table with hit@k beside every recall@k, by items and by ids: they are one figure here."""
    hits = {
        name.replace("recall@", "hit@"): value
        for name, value in row.items()
        if name.startswith(("recall@", "sid_recall@"))
    }
    return row | hits


def table_text(rows, topk):
    """{"popularity": table_row, …} -> Markdown in percent: all users, then those whose target is cold."""
    metrics = [f"{name}@{k}" for name in SHOWN for k in sorted(topk)]
    width = max(len(name) for name in rows) + 2
    lines = []
    for prefix, title in (("", "all users"), ("cold_", "target never seen in training")):
        users = next(iter(rows.values()))[f"{prefix}users"]
        if not users:
            continue
        head = f"{title} ({users:,}), %"
        column = max(len(head), width)
        lines.append("| " + " | ".join([head.ljust(column), *(m.rjust(13) for m in metrics)]) + " |")
        lines.append("|" + "|".join(["-" * (column + 2), *["-" * 14 + ":" for _ in metrics]]) + "|")
        for name, row in rows.items():
            cells = [cell(row[prefix + m], row[f"{prefix}{m}_ci95"]) for m in metrics]
            lines.append("| " + " | ".join([name.ljust(column), *cells]) + " |")
        lines.append("")
    return "\n".join(lines)


def cell(value, interval):
    """0.1234 in [0.11, 0.13] -> "12.34 ± 1.00", half the interval's width behind the sign."""
    return f"{100 * value:.2f} ± {50 * (interval[1] - interval[0]):.2f}".rjust(13)


def write_table(directory, rows, topk, note):
    """table.md and table.json beside each other; returns the text."""
    text = table_text(rows, topk)
    Path(directory, "table.md").write_text(f"{text}\n{note}\n", encoding="utf-8")
    write_json(Path(directory) / "table.json", rows)
    return text


def draw_curves(directory, panels):
    """metrics.jsonl -> curves.png: loss, accuracy and validation figures over optimizer steps.

    panels: {title: names of metrics}; one is drawn where the run has one of its metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    events = [json.loads(line) for line in Path(directory, "metrics.jsonl").read_text().splitlines()]
    known = set().union(*events)
    panels = {title: names for title, names in panels.items() if known & set(names)}
    # Margins that suit any panel: to fit them, matplotlib draws everything twice.
    wide, high = 5 * len(panels), 3.8  # inches
    figure, axes = plt.subplots(1, len(panels), figsize=(wide, high), squeeze=False)
    figure.subplots_adjust(0.7 / wide, 0.5 / high, 1 - 0.15 / wide, 1 - 0.35 / high, wspace=0.16)
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            points = [(e["step"], e[name]) for e in events if name in e]
            marker, shown = "o" if len(points) < 30 else None, name.replace("$", r"\$")  # $…$ is a formula
            if points:
                axis.plot(*zip(*points, strict=True), marker=marker, ms=4, label=shown)
        axis.set_title(title)
        axis.set_xlabel("optimizer step")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]) if axis.dataLim.y0 < 0 else 0)
    figure.savefig(Path(directory) / "curves.png", dpi=120)
    plt.close(figure)


def lead(rows, judged, name, other, metric, topk):
    """A line on how much better a row is than another; the row itself gets {metric}_against.

    rows: of table_rows; judged: {name of a row: Judged}
    """
    change = rows[name][metric] / max(rows[other][metric], 1e-12) - 1
    p = paired_p(judged[name].places, judged[other].places, topk)[metric]
    rows[name][f"{metric}_against"] = {"baseline": other, "change": change, "p": p}
    return f"{name}: {metric} {change:+.1%} against {other}, p = {p:.4f} (paired bootstrap)"


def conclude(training, judged, split, ranking, how="", against=None):
    """The last words of a run: its table on the test split and its curves. All ranks call it.

    Gives `judged` with popularity in front.

    Args:
        training: engine.session.Session.
        judged: {name: Judged} of the test split; popularity comes in front.
        how: what the note under the table adds about how, a clause that ends in "; ".
        against: {name of a row: the row that it has to beat}
    """
    run, test, log = Path(training.loop.output_dir), split.test, training.log
    judged = beside_popularity(judged, test, split, ranking)
    if distributed.rank() == 0:
        rows = table_rows(judged, split.train_counts[test.target] == 0, ranking.topk)
        best = "" if training.state.best_epoch is None else (
            f"best epoch {training.state.best_epoch:.4g} by validation {training.best_by}; ")  # fmt: skip
        leads = [
            lead(rows, judged, name, other, metric, ranking.topk)
            for name, other in (against or {}).items() for metric in JUDGED_BY
        ]  # fmt: skip
        note = (
            "\n".join(leads)
            + "\n" * bool(leads)
            + (
                f"Test split ({split.origin}), {candidates(len(split.train_counts), ranking)}, "
                f"{best}{how}± is half the width of the 95 % bootstrap interval."
            )
        )
        log.block(f"\n{write_table(run, rows, ranking.topk, note)}\n{note}\n")
        draw_curves(run, training.objective.panels)
        model_card.conclude(training.loop, BEST)
        log.concluded(training.state, training.loop)
        log.block(f"Files in {run}/: table.md, table.json, curves.png, metrics.jsonl, best_model/")
    distributed.barrier()
    return judged


def conclude_without_catalogue(training):
    """The last words of a run that ranks nothing: its losses and its curves. All ranks call it."""
    run = Path(training.loop.output_dir)
    if distributed.rank() == 0:
        rows = loss_rows(run, training.best_by, training.best_by in training.objective.falling)
        text = losses_text(rows)
        Path(run, "table.md").write_text(text, encoding="utf-8")
        write_json(run / "table.json", rows)
        training.log.block(f"\n{text}")
        draw_curves(run, training.objective.panels)
        model_card.conclude(training.loop, BEST)
        training.log.concluded(training.state, training.loop)
        training.log.block(f"Files in {run}/: table.md, table.json, curves.png, metrics.jsonl, best_model/")
    distributed.barrier()


def loss_rows(directory, best_by, less_is_better):
    """{"training, step 120": {figure: value}, "validation, step 100 (best_model)": …} of a run's last words.

    best_by: the figure of validation that has chosen best_model.
    """
    events = [json.loads(line) for line in Path(directory, "metrics.jsonl").read_text().splitlines()]
    steps, evaluations = ([e for e in events if e["kind"] == kind] for kind in ("step", "eval"))
    rows = {f"training, step {e['step']}": e for e in steps[-1:]}
    if evaluations and not evaluations[0]["step"]:
        rows["validation, before training"] = evaluations[0]
    rows |= {f"validation, step {e['step']}": e for e in evaluations[-1:]}
    if evaluations:
        best = (min if less_is_better else max)(evaluations, key=lambda e: e[best_by])
        rows.pop(f"validation, step {best['step']}", None)
        rows[f"validation, step {best['step']} (best_model)"] = best
    return rows


def losses_text(rows):
    """Rows of loss_rows -> Markdown: losses in nats, and the share of labels whose score is the highest."""
    names = [n for n in OF_LABELS if any(n in row for row in rows.values())]
    width = max(map(len, rows), default=0)
    lines = [f"| {'':<{width}} | {' | '.join(names)} |", f"|{'-' * (width + 2)}|{'---:|' * len(names)}"]
    for name, row in rows.items():
        cells = [f"{row[n]:.4f}".rjust(len(n)) if n in row else " " * len(n) for n in names]
        lines.append(f"| {name:<{width}} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
