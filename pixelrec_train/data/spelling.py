"""Ids of two tables that a person would read as the same."""

SPELLINGS = {  # what tells them apart -> an id without it
    "the .0 at the end that a spreadsheet adds": lambda text: text.removesuffix(".0"),
    "leading zeros": lambda text: text.lstrip("0"),
    "case": str.lower,
    "white space": lambda text: "".join(text.split()),
}


def difference(a, b):
    """What tells two ids apart, of SPELLINGS; None = more than one of them, or something else."""
    return next((what for what, plain in SPELLINGS.items() if plain(a) == plain(b)), None)


def simplified(text):
    """An id without anything of SPELLINGS."""
    for plain in SPELLINGS.values():
        text = plain(text)
    return text


def pairs(ids, others):
    """[(id, other)] of those that are the same once simplified."""
    there = {simplified(other): other for other in others}
    return [(text, there[plain]) for text in ids if (plain := simplified(text)) in there]
