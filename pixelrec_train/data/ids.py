"""Ids of millions of items in little memory: end to end, whatever they are mapped from."""

import itertools
from collections.abc import Sequence

import numpy as np

AT_ONCE = 1 << 14  # ids that become str together


class Ids(Sequence):
    """What a list of str is, in 8 bytes and the characters of each; a list takes 60 bytes more."""

    def __init__(self, characters, offsets):
        """characters: uint8, UTF-8; offsets: [N + 1] int64, where in them each begins and the last ends."""
        self.characters, self.offsets = characters, offsets

    @staticmethod
    def of(ids):
        """Of any sequence of str; itself where it is one."""
        if isinstance(ids, Ids):
            return ids
        blocks = [[text.encode() for text in ids[n : n + AT_ONCE]] for n in range(0, len(ids), AT_ONCE)]
        lengths = np.fromiter(map(len, itertools.chain.from_iterable(blocks)), np.int64, len(ids))
        characters = b"".join(itertools.chain.from_iterable(blocks))
        return Ids(np.frombuffer(characters, np.uint8), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        place = range(len(self))[place]  # a negative one counts from the end; IndexError where there is none
        return self.characters[self.offsets[place] : self.offsets[place + 1]].tobytes().decode()

    def __iter__(self):
        for first in range(0, len(self), AT_ONCE):
            offsets = self.offsets[first : first + AT_ONCE + 1].tolist()
            block = self.characters[offsets[0] : offsets[-1]].tobytes()
            for begin, end in itertools.pairwise(offset - offsets[0] for offset in offsets):
                yield block[begin:end].decode()

    def __eq__(self, other):
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
