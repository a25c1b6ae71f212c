"""HTML as functions: what is not markup already is escaped, so nothing from data can become a tag."""

from html import escape

from pixelrec_train.report.look import STYLE

VOID = ("input", "meta", "br")


class Html(str):
    """Markup. Any other text is escaped where it is put into some."""


def h(name, /, *inside, **attributes):
    """<name attributes>inside</name>; inside: texts, Html, numbers, None, and lists of them.

    Attributes: class_ is class, stroke_width is stroke-width; one that is None is left out, of one that is
    True the name stands alone.
    """
    told = "".join(
        f" {spelled(key)}" if value is True else f' {spelled(key)}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{told}>" if name in VOID else f"<{name}{told}>{joined(inside)}</{name}>")


def spelled(key):
    return key.rstrip("_").replace("_", "-")


def joined(parts):
    """Texts, escaped, and markup, one behind the other."""
    if isinstance(parts, Html):
        return parts
    if parts is None:
        return Html()
    if isinstance(parts, (str, int, float)):
        return Html(escape(str(parts)))
    return Html("".join(map(joined, parts)))


def page(title, *inside):
    """A whole file: it asks no network for anything, and runs no script."""
    head = [
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", title),
        h("style", Html(STYLE)),
    ]
    whole = h("html", h("head", head), h("body", h("main", inside)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def section(anchor, title, lead, *inside):
    """A part of a page; lead: a sentence under its title, or None."""
    return h("section", h("h2", title), h("p", lead, class_="lead") if lead else None, inside, id=anchor)


def card(title, *inside, class_="card", note=None):
    return h("div", h("h3", title, h("span", note, class_="note") if note else None), inside, class_=class_)


def cards(*inside, least="19rem"):
    """Side by side where there is room; least: width of one."""
    return h("div", inside, class_="cards", style=f"--least:{least}")


def tile(value, what, more=None):
    """A figure to be seen first."""
    return h(
        "div",
        h("b", value),
        h("span", what),
        h("small", more) if more else None,
        class_="tile",
    )


def legend(entries):
    """entries: [(class of the colour, text)]"""
    return h("p", [h("span", h("i", class_=f"dot {cls}"), text) for cls, text in entries], class_="legend")


def table(head, rows):
    """rows: lists of cells; the first of each names it. head: [] = there is none."""
    return h(
        "div",
        h(
            "table",
            h("thead", h("tr", [h("th", cell) for cell in head])) if head else None,
            h("tbody", [h("tr", h("th", row[0]), [h("td", cell) for cell in row[1:]]) for row in rows]),
        ),
        class_="wide",
    )


def missing(sentence):
    """Why a part is not there."""
    return h("p", sentence, class_="missing")
