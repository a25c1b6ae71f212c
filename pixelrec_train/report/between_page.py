"""Runs against the first of them, as a page in the look of report.html."""

from pathlib import Path

import numpy as np

from pixelrec_train.evaluation.metrics import figures, intervals
from pixelrec_train.files import write_whole
from pixelrec_train.report.between import changes, compare_runs
from pixelrec_train.report.between_text import lines_of
from pixelrec_train.report.charts import strip, ticks_of
from pixelrec_train.report.figures import colour, families, numbers, scale
from pixelrec_train.report.markup import card, cards, h, legend, page, section, tile

CHANCE = 0.05  # p below which a difference is coloured


def main(directories, html):
    """Print what changed between runs, and write it as a page where html names a file."""
    pairs = compare_runs(directories)
    for pair in pairs:
        print("\n".join(lines_of(pair)))
    print("p: paired bootstrap over users; of many slices some are below 0.05 by chance.")
    if html:
        Path(html).parent.mkdir(parents=True, exist_ok=True)
        write_whole(html, between(pairs))
        print(f"Page: {html}")


def between(pairs):
    """The text of the page."""
    first, found = pairs[0].first, pairs[0].first.found
    names = [pair.other.name for pair in pairs]
    about = (
        f"{len(first.places):,} users of the {found.split} split ({found.origin}), {found.items:,} "
        f"candidates, seen items {'left in' if found.keep_seen else 'removed'}."
    )
    sides = {"A": first} | {letter(n): pair.other for n, pair in enumerate(pairs)}
    rows = {name: row_of(side, pairs) for name, side in sides.items()}
    key = legend([(colour(n, rows), f"{n} = {side.name} ({side.found.model})") for n, side in sides.items()])
    in_numbers = h("details", h("summary", "All figures, in numbers"), numbers(rows))
    lead = "Dots are figures in percent, bars their 95 % intervals (bootstrap over users)."
    return page(
        f"{first.name} against {', '.join(names)}",
        h("p", "Runs compared, user by user", class_="kicker"),
        h("h1", " → ".join([first.name, ", ".join(names)])),
        h("p", about, class_="lead"),
        h("div", tiles(pairs[0]), class_="tiles"),
        section("figures", "Side by side", lead, key, families(rows, "", {}), in_numbers),
        [part(pair, letter(n)) for n, pair in enumerate(pairs)],
        h("footer", FOOTER),
    )  # fmt: skip


FOOTER = (
    "p: paired bootstrap over users, 10,000 resamples, two-sided. Where nothing differs, one in twenty "
    "slices has a p below 0.05 all the same. Made by scripts/compare.py --runs."
)


def letter(n):
    """Of the n-th run behind A."""
    return chr(ord("B") + n) if n < 25 else f"#{n + 2}"


def row_of(side, pairs):
    """Figures with intervals at the cut-offs of all runs."""
    topk = sorted({int(name.partition("@")[2]) for name in pairs[0].metrics}.intersection(
        *({int(name.partition("@")[2]) for name in pair.metrics} for pair in pairs)))  # fmt: skip
    places = np.minimum(side.places, max(topk))
    return {"users": len(places)} | figures(places, topk) | intervals(places, topk)


def tiles(pair):
    for metric in (f"recall@{pair.k}", f"ndcg@{pair.k}"):
        d = pair.metrics[metric]
        yield tile(f"{100 * (d.after - d.before):+.2f}", f"{metric}, points", f"p = {d.p:.4f}")
    yield tile(f"{len(pair.gained):,}", "users became a hit", f"among the first {pair.k}")
    yield tile(f"{len(pair.lost):,}", "users became a miss", f"{pair.hits:,} are a hit in both")


def part(pair, name):
    """One run against the first."""
    groups = {"all users, every figure": pair.metrics}
    groups |= {f"recall@{pair.k} {title}": parts for title, parts in pair.slices.items()}
    lead = (
        f"What {name} is better by than A, in percentage points, with the 95 % interval of the difference. A "
        f"line at 0; green or red where p is below {CHANCE}."
    )
    title = f"{pair.first.name} → {pair.other.name}"
    made = [differences(heading, parts) for heading, parts in groups.items()]
    lists = [
        changed("became a hit", pair, pair.gained, f"a miss at {pair.k} in A, a hit in {name}"),
        changed("became a miss", pair, pair.lost, f"a hit at {pair.k} in A, a miss in {name}"),
    ]
    return section(f"run-{name}", title, lead, cards(made, least="24rem"), cards(lists, least="24rem"))


def differences(title, parts):
    """A card of {name: Delta} on one scale around 0."""
    largest = max(abs(x) for d in parts.values() for x in (*d.interval, d.after - d.before))
    high = ticks_of(0, 100 * max(largest, 1e-3))[-1] / 100
    lines = []
    for name, d in parts.items():
        change = d.after - d.before
        cls = "c9" if d.p >= CHANCE else "better" if change > 0 else "worse"
        low, end = (100 * x for x in d.interval)
        text = (
            f"{name}: {100 * d.before:.2f} → {100 * d.after:.2f}, {100 * change:+.2f}, 95 % in "
            f"[{low:+.2f}, {end:+.2f}], p = {d.p:.4f}, {d.users:,} users"
        )
        lines.append(h(
            "div", h("span", name, h("br"), h("small", f"{d.users:,} users")),
            strip([(cls, change, *d.interval, text)], -high, high, zero=True),
            h("span", h("b", f"{100 * change:+.2f}", class_=cls), h("br"), h("small", f"p {d.p:.4f}")),
            class_="row",
        ))  # fmt: skip
    return card(title, lines, scale(high, -high), class_="card deltas")


def changed(title, pair, users, what):
    """A card of some users who changed."""
    rows = [
        h("li", h("b", user), f" wanted “{text}”" if text else f" wanted {target}", h("br"),
          h("small", f"{target}: place {before or 'absent'} → {after or 'absent'}"))
        for user, target, text, before, after in changes(pair, users)
    ]  # fmt: skip
    some = "all of them" if len(rows) == len(users) else f"{len(rows)} drawn by a fixed seed"
    heading = f"{len(users):,} users {title}"
    return card(
        heading, h("p", f"{what}; {some}", class_="note"), h("ul", rows, class_="items plain changed")
    )
