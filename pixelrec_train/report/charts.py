"""Charts as inline SVG: curves over steps, dots with bars on a scale, points in a plane."""

import math
import re

from pixelrec_train.report.markup import h

WIDE, HIGH = 340, 190  # of curves, in units of the picture
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 14, 24
FLAT = 0.6  # a curve that varies by less of its height is drawn on a scale of its own
MAP_WIDE, MAP_HIGH, MARGIN = 480, 380, 12


def curves(series, marks=(), percent=False):
    """Lines over optimizer steps, from 0, or where they hardly vary from below their least value.

    Args:
        series: [(class of the colour, name, [(step, value)])], each with a point.
        marks: [(step, text)]: vertical lines.
        percent: whether values are shares, written in percent.
    """
    scale = 100 if percent else 1
    values = [scale * y for _, _, points in series for _, y in points if math.isfinite(y)] or [0]
    least, most = min(values), max(values)
    ticks = ticks_of(least if least < 0 or most - least < FLAT * most else 0, most)
    low, high = ticks[0], max(ticks[-1], max(values))
    last = max([x for _, _, points in series for x, _ in points] + [x for x, _ in marks])

    def across(x):
        return round(LEFT + (WIDE - LEFT - RIGHT) * x / max(last, 1), 1)

    def up(y):
        return round(HIGH - BOTTOM - (HIGH - BOTTOM - TOP) * (y - low) / (high - low), 1)

    parts = []
    for tick in ticks:
        parts.append(h("line", x1=LEFT, x2=WIDE - RIGHT, y1=up(tick), y2=up(tick), class_="gridline"))
        parts.append(h("text", short(tick), x=LEFT - 6, y=up(tick) + 4, text_anchor="end"))
    steps = [tick for tick in ticks_of(0, last, 4) if tick <= last and tick == int(tick)]
    for step in steps:
        at = {"x": across(step), "y": HIGH - 8, "text_anchor": "middle" if step else "start"}
        parts.append(h("text", f"{int(step):,}", **at))
    for step, text in marks:
        x = across(step)
        side = "end" if x > WIDE / 2 else "start"
        parts.append(h("line", x1=x, x2=x, y1=TOP - 4, y2=HIGH - BOTTOM, class_="mark"))
        shift = -5 if side == "end" else 5
        parts.append(h("text", text, x=x + shift, y=TOP + 3, text_anchor=side, class_="marked"))
    for colour, name, points in series:
        points = [(x, scale * y) for x, y in points if math.isfinite(y)]
        places = " ".join(f"{across(x)},{up(y)}" for x, y in points)
        inside = [h("polyline", points=places, class_="line")]
        if len(points) <= 60:
            inside += [
                h("circle", h("title", f"{name} {short(y)}, step {x:,}"), cx=across(x), cy=up(y), r=2.6,
                  class_="point")
                for x, y in points
            ]  # fmt: skip
        parts.append(h("g", inside, class_=colour))
    named = ", ".join(name for _, name, _ in series)
    return h("svg", parts, viewBox=f"0 0 {WIDE} {HIGH}", role="img", aria_label=f"{named} over steps")


def strip(marks, low, high, zero=False):
    """Dots with bars on a line of the page's width; they keep their size on every screen.

    Args:
        marks: [(class of the colour, value, low end, high end, text of the tooltip)], one above the other.
        zero: whether 0 is marked.
    """

    def across(x):
        return f"{100 * (min(max(x, low), high) - low) / max(high - low, 1e-12):.2f}%"

    tall = max(22, 11 * len(marks))
    parts = [h("line", x1="0", x2="100%", y1=tall / 2, y2=tall / 2, class_="gridline")]
    if zero:
        parts.append(h("line", x1=across(0), x2=across(0), y1="0", y2=tall, class_="zero"))
    for n, (colour, value, begin, end, text) in enumerate(marks):
        y = round(tall * (n + 0.5) / len(marks), 1)
        bar = h("line", x1=across(begin), x2=across(end), y1=y, y2=y, class_="bar")
        parts.append(h("g", h("title", text), bar, h("circle", cx=across(value), cy=y, r="4", class_="point"),
                       class_=colour))  # fmt: skip
    return h("svg", parts, class_="strip", style=f"height:{tall}px", role="img",
             aria_label="; ".join(mark[-1] for mark in marks))  # fmt: skip


def scatter(points):
    """points: [(x, y, class, text of the tooltip)]; both axes at one scale; the page's style has colours."""
    xs, ys = ([point[n] for point in points] for n in (0, 1))
    size = max((max(xs) - min(xs)) / (MAP_WIDE - 2 * MARGIN), (max(ys) - min(ys)) / (MAP_HIGH - 2 * MARGIN))
    size = size or 1.0
    x0, y0 = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    r = 3 if len(points) <= 1500 else 2
    dots = [
        h("circle", h("title", text), cx=round(MAP_WIDE / 2 + (x - x0) / size, 1),
          cy=round(MAP_HIGH / 2 - (y - y0) / size, 1), r=r, class_=colour)
        for x, y, colour, text in points
    ]  # fmt: skip
    view = f"0 0 {MAP_WIDE} {MAP_HIGH}"
    return h("svg", dots, viewBox=view, role="img", aria_label="items in two dimensions")


def ticks_of(low, high, count=4):
    """About so many round numbers from low to high or just beyond."""
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def short(value):
    """A number in a few characters."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size and size < 1e-2:
        return re.sub(r"\.?0*e-0?", "e-", f"{value:.2e}")
    return f"{value:.4g}"
