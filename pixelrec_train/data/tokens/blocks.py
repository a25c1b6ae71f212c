"""Documents cut to size: as blocks of one stream, or each for itself in pieces. Both stand for a
TokenStore."""

import numpy as np

from pixelrec_train.data.cache import fingerprint


class Cut:
    """A TokenStore's tokens in pieces of at most `size`: lengths, num_labels, source and tokens(i) of pieces.

    Of its samples, which are documents, all tokens but each one's first are labels.
    """

    def __init__(self, store, size, kind):
        self.store, self.size = store, size
        self.sources, self.remarks = store.sources, store.remarks
        self.fingerprint = fingerprint(store.fingerprint, kind, size)

    @property
    def num_samples(self):
        return len(self.lengths)

    @property
    def num_labels(self):
        return self.lengths - 1  # nothing stands before the first


class Pieces(Cut):
    """Every document for itself: pieces of `size` tokens, the last one shorter."""

    def __init__(self, store, size):
        super().__init__(store, size, "pieces")
        counts = -(-store.lengths.astype(np.int64) // size)
        self.document = np.repeat(np.arange(store.num_samples), counts)
        self.number = np.arange(len(self.document)) - np.repeat(np.cumsum(counts) - counts, counts)
        left = store.lengths[self.document] - self.number * size
        self.lengths = np.minimum(left, size).astype(np.int32)
        self.source = store.source[self.document]
        ends = np.cumsum(counts)
        self.entry_bounds = [
            (int(ends[first - 1]) if first else 0, int(ends[stop - 1])) for first, stop in store.entry_bounds
        ]

    def tokens(self, i):
        """As TokenStore's."""
        start = self.number[i] * self.size
        ids = self.store.tokens(self.document[i])[0][start : start + self.lengths[i]]
        return ids, np.arange(len(ids)) > 0


class Blocks(Cut):
    """All documents of an entry end to end, cut every `size` tokens; its last block is shorter, and
    nothing is lost.

    A block counts to the source of its first token.
    """

    def __init__(self, store, size):
        super().__init__(store, size, "blocks")
        starts, lengths, self.entry_bounds = [], [], []
        ends = np.cumsum(store.lengths, dtype=np.int64)
        self.begins = ends - store.lengths  # of documents, in the stream of all
        for first, stop in store.entry_bounds:
            begin, end = int(self.begins[first]), int(ends[stop - 1])
            own = np.arange(begin, end, size)
            self.entry_bounds.append((sum(map(len, starts)), sum(map(len, starts)) + len(own)))
            starts.append(own)
            lengths.append(np.minimum(end - own, size))
        self.starts, self.lengths = np.concatenate(starts), np.concatenate(lengths).astype(np.int32)
        self.first = np.searchsorted(self.begins, self.starts, "right") - 1  # the document a block begins in
        self.source = store.source[self.first]

    def tokens(self, i):
        """As TokenStore's."""
        parts, start, left, document = [], int(self.starts[i]), int(self.lengths[i]), int(self.first[i])
        while left:
            skipped = start - int(self.begins[document])
            part = self.store.tokens(document)[0][skipped : skipped + left]
            parts.append(part)
            start, left, document = start + len(part), left - len(part), document + 1
        ids = np.concatenate(parts)
        return ids, np.arange(len(ids)) > 0
