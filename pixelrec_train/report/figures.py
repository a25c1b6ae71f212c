"""The table of a run with its intervals drawn, and for whom its hits are."""

from pixelrec_train.evaluation.metrics import figures, groups, intervals
from pixelrec_train.report.charts import short, strip, ticks_of
from pixelrec_train.report.markup import card, cards, h, joined, legend, missing, section, table

FAMILIES = ("recall", "ndcg", "mrr")
AGAINST = "_against"  # of a row's metric: the row it was compared with
BASELINE = "is a baseline"  # in a row of a comparison
DECILES, LENGTHS = 10, 5  # groups of users


def test_section(run, baselines, compared):
    """Models x metrics with their intervals on common scales, for all users and for cold targets.

    Args:
        baselines: {name: row} of a comparison, and `compared` its rows of this run, which say by how much
            they are better than the strongest of them; {} = there is none.
    """
    rows = {name: row for name, row in run.ranked.items() if name == "popularity"}
    rows |= {name: row | {BASELINE: True} for name, row in baselines.items()} | run.ranked
    told = list(leads(run.ranked | compared))
    inside = [h("p", line, class_="note") for _, _, line in told]
    best = {metric: other for metric, other, _ in told}
    if best:
        inside.append(h("p", "★ the one to beat.", class_="note"))
    in_numbers = h("details", h("summary", "All figures, in numbers"), numbers(rows))
    inside += [families(rows, "", best), cold_part(rows), in_numbers]
    if not baselines:
        inside.append(missing(
            f"Of baselines, a run judges popularity alone. Those it has to beat: python scripts/compare.py … "
            f"--checkpoint {run.directory}/best_model; then python scripts/report.py {run.directory} "
            f"--compared with its --output_dir."
        ))  # fmt: skip
    lead = (
        "Dots are figures in percent, bars their 95 % intervals (bootstrap over users). A user has one "
        "target, so recall@k is hit@k."
    )
    return section("figures", "Test split", lead, *inside)


def leads(rows):
    """(metric, the row it was compared with, a line) of each figure that was compared."""
    for name, row in rows.items():
        for key, told in row.items():
            if key.endswith(AGAINST):
                metric, other = key.removesuffix(AGAINST), told["baseline"]
                by = f"{told['change']:+.1%} against {other}, p = {told['p']:.4f} (paired bootstrap)"
                yield metric, other, f"{name}: {metric} {by}."


def cold_part(rows):
    users = next(iter(rows.values())).get("cold_users")
    if not users:
        why = "No target of these users was new to the model: each occurs in a training window."
        return h("p", why, class_="note")
    title = f"{users:,} users whose target was never seen in training"
    return joined([h("h3", title, class_="between"), families(rows, "cold_", {})])


def families(rows, prefix, best):
    """A card for recall, ndcg and mrr each: all cut-offs, all models, one scale."""
    made = []
    for family in FAMILIES:
        metrics = [f"{prefix}{family}@{k}" for k in cut_offs(rows, family)]
        ends = [row[f"{m}_ci95"][1] for m in metrics for row in rows.values() if f"{m}_ci95" in row]
        if not ends:
            continue
        high = round_end(max(ends))
        inside = []
        for metric in metrics:
            inside.append(h("h4", metric.removeprefix(prefix)))
            for name, row in rows.items():
                if f"{metric}_ci95" in row:
                    star = "★ " * (best.get(metric) == name)
                    inside.append(figure_row(star + name, row, metric, high, colour(name, rows)))
        made.append(card(family, inside, scale(high), note="%"))
    return cards(made)


def cut_offs(rows, family):
    names = {name.partition("@")[2] for row in rows.values() for name in row if name.startswith(f"{family}@")}
    return sorted(int(k) for k in names if k.isdigit())


def round_end(largest):
    """Where a scale that begins at 0 ends."""
    return ticks_of(0, 100 * max(largest, 1e-3))[-1] / 100


def figure_row(name, row, metric, high, cls):
    low, end = row[f"{metric}_ci95"]
    text = f"{name}: {metric} {100 * row[metric]:.2f} %, 95 % in [{100 * low:.2f}, {100 * end:.2f}]"
    half = f" ±{50 * (end - low):.2f}"
    return h(
        "div", h("span", name, title=name), strip([(cls, row[metric], low, end, text)], 0, high),
        h("span", h("b", f"{100 * row[metric]:.2f}"), h("small", half)), class_="row",
    )  # fmt: skip


def scale(high, low=0, form=lambda x: short(100 * x)):
    axis = h("div", [h("span", form(x)) for x in (low, (low + high) / 2, high)], class_="axis")
    return h("div", h("span"), axis, h("span"), class_="row scale")


def colour(name, rows):
    """Baselines are grey, models have colours, in the order of the table."""
    models = [other for other in rows if other != "popularity" and BASELINE not in rows[other]]
    return f"c{models.index(name) % 7}" if name in models else "c9"


def numbers(rows):
    """Every figure as it stands in table.json."""
    names = [f"{p}{f}@{k}" for p in ("", "cold_") for f in FAMILIES for k in cut_offs(rows, f)]
    names = [name for name in names if any(name in row for row in rows.values())]
    told = [[name.replace("_", " "), *(cell(row, name) for row in rows.values())] for name in names]
    return table(["%", *rows], [["users", *(f"{row['users']:,}" for row in rows.values())], *told])


def cell(row, name):
    if name not in row:
        return ""
    low, high = row.get(f"{name}_ci95", (row[name], row[name]))
    return f"{100 * row[name]:.2f} ± {50 * (high - low):.2f}"


def who_section(run):
    """recall by how often the target was taken and by how much the user took before."""
    title, found = "For whom it works", run.places
    if found is None:
        return section("who", title, None, missing(
            f"This run left no places.parquet: it is of an older version, so nobody knows who was a hit. "
            f"python scripts/evaluate_pixelrec.py --checkpoint {run.directory}/best_model --split test makes "
            f"it, then python scripts/report.py {run.directory} this part."
        ))  # fmt: skip
    k = 10 if 10 in found.topk else max(found.topk)
    rows = run.ranked | {name: {} for name in found.places if name not in run.ranked}
    colours = {name: colour(name, rows) for name in found.places}
    key = legend([(cls, name) for name, cls in colours.items()])
    made = [
        by_group("by popularity of the target", "taken in training", by_taken(found), found, k, colours, key),
        by_group("by length of the history", "taken before", by_history(found), found, k, colours, key),
    ]
    lead = (
        f"recall@{k} in percent with 95 % intervals, of tenths (fifths) of the users; who has the same "
        f"number is in the same group, so groups may be fewer and of different sizes."
    )
    return section("who", title, lead, cards(made, least="24rem"))


def by_taken(found):
    """[(label, [E] bool)] of UserPlaces: tenths by popularity of the target, never taken ones apart."""
    return [(f"{span(low, high)}×" if high else "never", inside)
            for low, high, inside in groups(found.taken, DECILES)]  # fmt: skip


def by_history(found):
    return [(f"{span(low, high)} items", inside) for low, high, inside in groups(found.history, LENGTHS)]


def span(low, high):
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def by_group(title, what, parts, found, k, colours, key):
    metric, rows, largest = f"recall@{k}", [], 0.0
    for label, inside in parts:
        marks = []
        for name, places in found.places.items():
            some = places[inside]
            value, ends = figures(some, [k])[metric], intervals(some, [k])[f"{metric}_ci95"]
            text = f"{name}, {label}: {100 * value:.2f} %, 95 % in [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"
            marks.append((colours[name], value, *ends, text))
            largest = max(largest, ends[1])
        rows.append((label, int(inside.sum()), marks))
    own, high = list(found.places).index(found.model), round_end(largest)
    lines = [
        h("div", h("span", label, h("br"), h("small", f"{users:,} users")), strip(marks, 0, high),
          h("b", f"{100 * marks[own][1]:.1f}"), class_="row")
        for label, users, marks in rows
    ]  # fmt: skip
    return card(title, key, lines, scale(high), class_="card groups", note=what)
