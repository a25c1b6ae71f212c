"""What items have in common, by their texts alone: short values that several share, and words.

No user is asked: who took what has no part in it.
"""

import re
from collections import Counter, defaultdict
from typing import NamedTuple

LONGEST_VALUE = 40  # characters of a value that is a category, a brand or a tag, and no running text
MOST = 0.1  # share of the items that may have a word or value; what more have says nothing
WORD = re.compile(r"[\u3040-\u9fff]{2}|[^\W\d_\u3040-\u9fff]{4,}")  # of Chinese and Japanese two signs
IDLE = frozenset("with from this that your will have more than into each when they them also".split())


class Trait(NamedTuple):
    """Something several items have."""

    words: str  # tag "ramen", or "broth"
    is_value: bool
    items: int  # how many of the catalogue have it


class Shared(NamedTuple):
    """A trait of an item, and who of a history has it."""

    trait: Trait
    items: list[int]  # newest first


class Traits(NamedTuple):
    """What the items of a catalogue have in common; a trait is its place in `table`, values before words."""

    table: list[Trait]
    own: list[frozenset[int]]  # of each item
    values: list[list[int]]  # those of them that are values


def traits_of(known):
    """Traits of the items of Known."""
    values, words = [], []
    for fields in known.fields:
        named = zip(known.text_keys, fields or (), strict=False)
        own = {(key, value) for key, value in named if 0 < len(value) <= LONGEST_VALUE}
        values.append(own)
        words.append(set(WORD.findall(" ".join(fields or ()).lower())) - IDLE)
    traits = {what: Trait(f'{what[0]} "{what[1]}"', True, n) for what, n in common(values)}
    traits |= {word: Trait(f'"{word}"', False, n) for word, n in common(words)}
    place = {what: n for n, what in enumerate(traits)}
    of_values = [[place[value] for value in own if value in place] for own in values]
    of_words = [[place[word] for word in told if word in place] for told in words]
    all_own = [frozenset(own + told) for own, told in zip(of_values, of_words, strict=True)]
    return Traits(list(traits.values()), all_own, of_values)


def common(sets):
    """(what, how many of the sets hold it) of what at least two do, and not too many."""
    counts, most = Counter(), max(2, int(MOST * len(sets)))
    for own in sets:
        counts.update(own)
    return [(what, n) for what, n in counts.items() if 2 <= n <= most]


def shared(traits, target, history, most):
    """[Shared] of a target and a history: values first, then the rarest words; at most `most`.

    A word that is one of the values said is not said again.
    """
    found, own = defaultdict(dict), traits.own[target]
    for item in reversed(history):
        for trait in own & traits.own[item]:
            found[trait][item] = None  # an item taken twice counts once
    both = [Shared(traits.table[trait], list(items)) for trait, items in found.items()]
    both.sort(key=lambda s: (not s.trait.is_value, s.trait.items, s.trait.words))
    said = tuple(s.trait.words.lower() for s in both if s.trait.is_value)
    return [s for s in both if s.trait.is_value or not any(w.endswith(s.trait.words) for w in said)][:most]


def mostly(traits, history, most):
    """[(Trait, how many of the history have it)] of the values that at least two of them have."""
    counts = Counter(trait for item in history for trait in traits.values[item])
    order = sorted(counts, key=lambda trait: (-counts[trait], traits.table[trait].words))
    return [(traits.table[trait], counts[trait]) for trait in order[:most] if counts[trait] > 1]
