"""Parts of a run's page that are about the training: curves, speed, and how to do it again."""

import shlex
from statistics import median

from pixelrec_train.report.charts import curves, short
from pixelrec_train.report.markup import card, cards, h, legend, missing, section, table, tile
from pixelrec_train.run.log import duration

# Title -> figures of training and validation; whether they are shares. Drawn where a run has one of them.
PANELS = {
    "Loss, nats": (("loss", "valid_loss", "itemic_loss", "text_loss"), False),
    "Validation, %": (("recall@10", "ndcg@10", "cold_recall@10", "sid_recall@10"), True),
    "Reward": (("reward", "valid_reward"), False),
    "Accuracy in training, %": (
        ("nce_top1_acc", "nce_top10_acc", "text_top1", "level1_top1", "level2_top1", "level3_top1"),
        True,
    ),
    "Learning rate": (("lr",), False),
    "Gradient norm, before clipping": (("grad_norm",), False),
    "Mean cosine of two pool items": (("item_cosine",), False),
}
SPEED = {
    "Windows a second": ("users_per_s",),
    "Samples a second": ("samples_per_s",),
    "Tokens a second": ("tokens_per_s",),
    "Waiting for data, % of a step": ("data_wait_pct",),
}
MEDIANS = {
    "users_per_s": "windows/s", "samples_per_s": "samples/s", "items_per_s": "items/s",
    "tokens_per_s": "tokens/s", "step_ms": "ms/step", "data_wait_pct": "% of a step in data",
    "mfu_pct": "% of the GPU's peak",
}  # fmt: skip


def panel(run, title, names, percent=False, marks=()):
    """A card of curves; None where the run has none of these figures."""
    found, unit = [], 100 if percent else 1
    for name in names:
        points = [
            (e["step"], e[name]) for e in run.events if e["kind"] in ("step", "eval") and is_number(e, name)
        ]
        if points:
            found.append((f"c{len(found) % 7}", name, points))
    if not found:
        return None
    key = [(colour, f"{name} {short(unit * points[-1][1])}") for colour, name, points in found]
    return card(title, legend(key), curves(found, marks, percent))


def is_number(event, name):
    return isinstance(event.get(name), (int, float))


def curves_section(run):
    if not run.events:
        why = "This run has no metrics.jsonl, so there is nothing to draw."
        return section("curves", "Curves", None, missing(why))
    marks = [] if run.best_step is None else [(run.best_step, "best_model")]
    made = [panel(run, title, names, percent, marks) for title, (names, percent) in PANELS.items()]
    lead = (
        "Over optimizer steps. The number behind a name is its last value; the dashed line is where "
        "best_model was saved."
    )
    return section("curves", "Curves", lead, cards(made))


def speed_section(run):
    steps, tiles = run.steps, []
    if not steps:
        why = "This run has logged no step, so its speed is not known."
        return section("speed", "Speed", None, missing(why))
    for name, what in MEDIANS.items():
        if values := [step[name] for step in steps if is_number(step, name)]:
            tiles.append(tile(short(float(f"{median(values):.3g}")), what, "median"))
    if memory := [step["memory_gb"] for step in steps if is_number(step, "memory_gb")]:
        tiles.append(tile(f"{max(memory):.1f} GB", "memory", "largest peak of rank 0"))
    if is_number(steps[0], "eta_s"):
        more = f"the first line foresaw {foreseen(steps[0])}"
        tiles.append(tile(duration(training_seconds(run)), "in steps", more))
    lead = (
        f"All {run.record.get('ranks', '?')} ranks together; medians are of the log's lines; evaluations and "
        f"saves are not counted."
    )
    made = [panel(run, title, names) for title, names in SPEED.items()]
    return section("speed", "Speed", lead, h("div", tiles, class_="tiles"), cards(made))


def training_seconds(run):
    """Wall time of all optimizer steps, from the log's means."""
    before, seconds = 0, 0.0
    for step in run.steps:
        seconds += (step["step"] - before) * step.get("step_ms", 0) / 1000
        before = step["step"]
    return seconds


def foreseen(step):
    """What the first line's ETA makes of the whole run."""
    return duration(step["eta_s"] + step["step"] * step["step_ms"] / 1000)


def again_section(run):
    """Command, commit, versions, seeds, data."""
    record, parts = run.record, []
    if record.get("command"):
        parts.append(h("pre", lines_of(record)))
    else:
        why = "This run is of a version that did not write down its command; its settings are below."
        parts.append(missing(why))
    facts = {
        "commit": record.get("commit") or "not known",
        "seed": run.flags.get("seed", "none"),
        "ranks": record.get("ranks", "not known"),
        "machine": record.get("machine", "not known"),
        "packages": record.get("versions", {}),
    } | {f"data: {name.replace('_', ' ')}": value for name, value in record.get("data", {}).items()}
    settings = table(["flag", "value"], in_words(dict(sorted(run.flags.items()))))
    parts += [
        h("div", table([], in_words(facts)), class_="left card"),
        h("details", h("summary", f"All {len(run.flags)} settings"), h("div", settings, class_="left")),
    ]
    lead = (
        "The same command at the same commit, with the same packages and files, gives the same figures; the "
        "fingerprints of data are of what was read."
    )
    return section("again", "How to do it again", lead, parts)


def lines_of(record):
    """For a terminal, from the repository's root; a flag a line."""
    (name, *rest), ranks, lines = record["command"], record.get("ranks", 1), []
    if commit := record.get("commit"):
        clean = commit.removesuffix("+changes")
        lines.append(f"git checkout {clean}" + "  # and changes that are in no commit" * (clean != commit))
    start = f"deepspeed --num_gpus {ranks}" if ranks > 1 else "python"
    quoted = map(shlex.quote, rest)
    flags = "".join(f" \\\n  {word}" if word.startswith("--") else f" {word}" for word in quoted)
    return "\n".join([*lines, f"{start} scripts/{name}.py{flags}"])


def in_words(values):
    """{name: value} -> [[name, text]]"""
    return [[name, words(value)] for name, value in values.items()]


def words(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {x}" for name, x in value.items()) or "none"
    return str(value)
