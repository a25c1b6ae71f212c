"""Which samples an epoch holds, and in which order: a function of (seed, epoch) alone."""

from fractions import Fraction
from math import floor
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.tokens.packs import number_type

ORDER, PASS = 2, 3  # told from each other and from other draws of the same seed by the key's last word


class Entry(NamedTuple):
    """Samples first … stop - 1, and how often they are read. Neither epochs nor a weight: once per epoch."""

    first: int
    stop: int
    epochs: float | None = None  # times that a sample is read per epoch; above 0, fractions allowed
    weight: float | None = None  # share of an epoch's samples, in units of all weights together; above 0


class Mixture:
    """Entries, each an endless stream of passes over its usable samples, and what an epoch takes of them.

    A pass is a permutation; an epoch goes on where the last one stopped, so that half an epoch twice is every
    sample once. With weights an epoch has as many samples as all entries together.
    """

    def __init__(self, entries, usable):
        """
        Args:
            entries: [Entry], all with weights or none.
            usable: [N] bool, False for samples that no epoch may hold.

        Raises:
            ValueError: entries that contradict each other, or of which nothing can be read.
        """
        check(entries)
        kind = number_type(len(usable))
        self.stream = [(np.flatnonzero(usable[e.first : e.stop]) + e.first).astype(kind) for e in entries]
        sizes = [len(numbers) for numbers in self.stream]
        if 0 in sizes:
            raise ValueError(f"{named(sizes.index(0))} has no usable sample")
        if any(e.weight for e in entries):
            self.rates = [Fraction(n) for n in shares([Fraction(e.weight) for e in entries], sum(sizes))]
        else:
            epochs = [Fraction(1 if e.epochs is None else e.epochs) for e in entries]
            self.rates = [times * size for times, size in zip(epochs, sizes, strict=True)]

    def taken(self, epoch):
        """[(start, stop)] of each entry's stream: the places that this epoch reads."""
        # To the nearest place: three times 0.333… are all, and ten times 0.1 are not one too many.
        return [tuple(floor(rate * e + Fraction(1, 2)) for e in (epoch, epoch + 1)) for rate in self.rates]

    def counts(self, epoch):
        """Samples of each entry in this epoch. Differs by one between epochs where epochs are fractions."""
        return [stop - start for start, stop in self.taken(epoch)]

    def order(self, seed, epoch):
        """[n] sample numbers of this epoch in the order they come, those of all entries mixed."""
        parts = [
            self.passes(seed, entry, *places)
            for entry, places in enumerate(self.taken(epoch))
            if places[0] < places[1]
        ]
        numbers = np.concatenate([self.stream[0][:0], *parts])  # of an epoch without samples: none
        np.random.default_rng([seed, epoch, 0, ORDER]).shuffle(numbers)
        return numbers

    def passes(self, seed, entry, start, stop):
        """Places start … stop - 1 of an entry's stream -> sample numbers."""
        numbers, found = self.stream[entry], []
        for number in range(start // len(numbers), -(-stop // len(numbers))):
            before = number * len(numbers)
            order = np.random.default_rng([seed, entry, number, PASS]).permutation(numbers)
            found.append(order[max(start - before, 0) : stop - before])
        return np.concatenate(found)


def shares(weights, total):
    """[E] weights -> [E] integers that add up to `total`, each less than one from its exact share.

    Raises:
        ValueError: a share of no sample at all.

    Source: largest remainders (Hamilton's method); of equal ones the first.
    """
    exact_shares = [weight * total / sum(weights) for weight in weights]
    found = [floor(share) for share in exact_shares]
    by_remainder = sorted(range(len(found)), key=lambda e: found[e] - exact_shares[e])
    for entry in by_remainder[: total - sum(found)]:
        found[entry] += 1
    if 0 in found:
        raise ValueError(f"the weight of {named(found.index(0))} gives it none of {total:,} samples")
    return found


def check(entries):
    """Raises ValueError where entries contradict each other or themselves."""
    if not entries:
        raise ValueError("a mixture of no entries has nothing to read")
    weighted = [e.weight is not None for e in entries]
    if any(weighted) and not all(weighted):
        raise ValueError(f"{named(weighted.index(False))} has no weight, and others have one")
    for place, entry in enumerate(entries):
        if entry.weight is not None and entry.epochs is not None:
            raise ValueError(f"{named(place)} has both a weight and epochs")
        for kind in ("weight", "epochs"):
            number = getattr(entry, kind)
            if number is not None and not 0 < number < float("inf"):
                raise ValueError(f"{kind} of {named(place)} must be above 0, got {number}")


def named(entry):
    return f"entry {entry + 1} of the mixture"
