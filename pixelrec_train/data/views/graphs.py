"""Rows of what stands between items: the first codes that they share, and who follows whom.

Codes and texts are the catalogue's, whoever took what. Who follows whom is counted in one part alone, inside
the histories whose next item other views ask for, so what is held out has no part in it.
"""

import random
from collections import Counter, defaultdict

from pixelrec_train.data.views.view import CATEGORIES, LeftOut, Row

MOST_SIMILAR, MOST_NEIGHBOURS, MOST_TRANSITIONS = 5_000, 30, 100_000
EXAMPLES = 3  # items that share a prefix


def random_of(asked, *what):
    """Numbers of a row of its own: further rows change nothing in it."""
    return random.Random(repr((asked.seed, *what)))


def prefix_of(words):
    """The first two of an id's tokens, or fewer: never all."""
    return tuple(words[: min(2, len(words) - 1)])


def prefixes(known):
    """{prefix: [items]}, in the order of the items."""
    groups = defaultdict(list)
    for item, words in enumerate(known.words):
        if prefix := prefix_of(words):
            groups[prefix].append(item)
    return groups


def prefix_categories(known, part, asked):
    for words, items in prefixes(known).items():
        if len(items) < 2:
            yield LeftOut("prefixes of one item")
            continue
        told = [item for item in items if known.text(item, CATEGORIES)]
        if not told:
            yield LeftOut("prefixes whose items have no categories")
            continue
        item = random_of(asked, "prefix", *words).choice(told)
        said = {"prefix": known.begin + "".join(words), "categories": known.text(item, CATEGORIES)}
        yield Row(words, said, {"item_id": known.item_ids[item]})


def prefix_examples(known, part, asked):
    for words, items in prefixes(known).items():
        if len(items) < EXAMPLES:
            yield LeftOut(f"prefixes of fewer than {EXAMPLES} items")
            continue
        chosen = random_of(asked, "examples", *words).sample(items, EXAMPLES)
        said = {"prefix": known.begin + "".join(words), "items": known.said(chosen, " ")}
        yield Row(words, said, {"item_ids": [known.item_ids[item] for item in chosen]})


def similar(known, part, asked):
    """Of at most MOST_SIMILAR items, drawn once."""
    groups, items = prefixes(known), range(len(known.ids))
    drawn = random_of(asked, "similar").sample(items, min(MOST_SIMILAR, len(items)))
    for item in sorted(drawn):
        # Not one with the very same id: that would be no answer.
        others = [o for o in groups[prefix_of(known.words[item])] if known.ids[o] != known.ids[item]]
        if not others:
            yield LeftOut("items that share their first codes with no other")
            continue
        other = random_of(asked, "similar", known.item_ids[item]).choice(others)
        told = {"item_id": known.item_ids[item], "target_item_ids": [known.item_ids[other]]}
        yield Row((known.item_ids[item],), {"item": known.ids[item], "other": known.ids[other]}, told)


def pairs(part, asked):
    """(item, the one taken next) of every history that C asks about."""
    for stretch in part.nexts(asked.history, 1):
        yield from zip(stretch.history, stretch.history[1:], strict=False)


def neighbours(forward):
    """Rows of what is most often taken next to an id with at least two neighbours."""

    def rows(known, part, asked):
        graph = defaultdict(Counter)
        for first, second in pairs(part, asked):
            one, other = (first, second) if forward else (second, first)
            graph[known.ids[one]][known.ids[other]] += 1
        for one, others in graph.items():
            if others.total() < 2:
                yield LeftOut("ids with one neighbour alone")
                continue
            for other, count in others.most_common(MOST_NEIGHBOURS):
                yield Row((one, other), {"item": one, "other": other}, {"times": count})

    return rows


def transitions(known, part, asked):
    """Of at most MOST_TRANSITIONS pairs, drawn once."""
    found = [
        (known.text(first, CATEGORIES), known.text(second, CATEGORIES), second)
        for first, second in pairs(part, asked)
    ]
    told = [n for n, (before, after, _) in enumerate(found) if before and after]
    for n in sorted(random_of(asked, "transitions").sample(told, min(MOST_TRANSITIONS, len(told)))):
        first, second, item = found[n]
        said = {"before": first, "after": second, "item": known.ids[item]}
        yield Row((n,), said, {"target_item_ids": [known.item_ids[item]]})
    yield from [LeftOut("pairs with an item without categories")] * (len(found) - len(told))
