"""Finding the nearest items: FAISS, or blocked exact scores in torch."""

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.libraries import import_faiss

ITEMS_PER_BLOCK = 16384


class FaissIndex:
    """Inner-product search, every item compared (IndexFlatIP)."""

    def __init__(self, vectors):
        faiss = import_faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)

    def search(self, queries, k):
        """[b, D] queries -> [b, k] scores and item numbers, best first."""
        return self.index.search(queries, k)

    def save(self, path):
        import_faiss().write_index(self.index, str(path))


class ExactIndex:
    """The same lists from plain matrix products on this rank's device, a block of items at a time."""

    def __init__(self, vectors):
        self.vectors = torch.from_numpy(vectors).to(distributed.device())

    def search(self, queries, k):
        device = self.vectors.device
        queries = torch.from_numpy(queries).to(device)
        scores = torch.empty(len(queries), 0, device=device)
        numbers = torch.empty(len(queries), 0, dtype=torch.long, device=device)
        for first in range(0, len(self.vectors), ITEMS_PER_BLOCK):
            block = self.vectors[first : first + ITEMS_PER_BLOCK]
            here = queries @ block.T
            best = best_first(here, k)
            # The best so far stand in front, so that equal scores stay in the order of their numbers.
            scores = torch.cat([scores, here.gather(1, best)], 1)
            numbers = torch.cat([numbers, best + first], 1)
            best = best_first(scores, k)
            scores, numbers = scores.gather(1, best), numbers.gather(1, best)
        return scores.cpu().numpy(), numbers.cpu().numpy()


def best_first(scores, k):
    """[b, n] scores -> [b, min(k, n)] columns of the largest, best first, equal scores by column.

    A stable sort says the same, but sorts all n; topk leaves open which of equals it takes, and their order.
    """
    if scores.shape[1] <= k:
        return scores.sort(dim=1, descending=True, stable=True).indices
    values, columns = scores.topk(k + 1, dim=1)
    columns = columns[:, :k].sort(dim=1).values
    order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
    best = columns.gather(1, order)
    cut = values[:, k - 1] == values[:, k]  # equals on both sides: these rows, rarely any, are sorted
    if cut.any():
        best[cut] = scores[cut].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return best


def build_index(embeddings, retrieval, cosines=True):
    """[num_items, D] embeddings, of any length each -> an index over their directions, or as they are."""
    vectors = unit(embeddings) if cosines else np.ascontiguousarray(embeddings, np.float32)
    kind = FaissIndex if retrieval == "faiss" else ExactIndex
    marks = np.fromiter((hash(vector.tobytes()) for vector in vectors), np.int64, len(vectors))
    _, first, of = np.unique(marks, return_index=True, return_inverse=True)
    if len(first) == len(vectors):
        return kind(vectors)
    place = np.argsort(np.argsort(first))  # of each distinct vector when they are in the order of items
    of = place[of]
    return Twins(
        kind(vectors[np.sort(first)]), np.append(0, np.cumsum(np.bincount(of))), of.argsort(kind="stable")
    )


class Twins:
    """Items that share their vector, such as those without text: equals, however their scores are rounded.

    A matrix product rounds its last columns in another way than those before.
    """

    def __init__(self, index, ptr, items):
        """
        Args:
            index: of the M distinct vectors.
            ptr, items: items[ptr[m] : ptr[m + 1]] share vector m, by number.
        """
        self.index, self.ptr, self.items = index, ptr, items

    def search(self, queries, k):
        scores, vectors = self.index.search(queries, min(k, len(self.ptr) - 1))
        numbers, column = members(vectors, self.ptr, self.items, k)
        return np.take_along_axis(scores, column, axis=1), numbers


def members(groups, ptr, items, wanted):
    """The first items of groups that follow each other.

    Args:
        groups: [b, n] numbers of groups, best first, -1 where a row ran out.
        ptr, items: items[ptr[g] : ptr[g + 1]] belong to group g.

    Returns:
        [b, wanted] items, -1 where they run out, and [b, wanted] the column of `groups` each comes from.
    """
    sizes = np.where(groups >= 0, np.diff(ptr)[groups], 0)
    ends, row = np.cumsum(sizes, axis=1), np.arange(len(groups))[:, None]
    stride = int(ends.max()) + wanted + 1  # sets the rows apart in one sorted array
    place = np.arange(wanted)
    column = np.searchsorted((ends + row * stride).ravel(), (place + row * stride).ravel(), side="right")
    column = column.reshape(len(groups), wanted) - row * groups.shape[1]
    there = column < groups.shape[1]
    column = np.minimum(column, groups.shape[1] - 1)
    start = ends[row, column] - sizes[row, column]
    number = items[np.where(there, ptr[groups[row, column]] + place - start, 0)]
    return np.where(there, number, -1), column


def unit(vectors, dtype=np.float32):
    """[n, D] -> the same directions with length 1; a zero vector stays zero."""
    vectors = np.asarray(vectors, dtype)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def recommend(index, queries, seen, k, num_items):
    """[b, k] the items of `ranked`."""
    return ranked(index, queries, seen, k, num_items)[0]


def ranked(index, queries, seen, k, num_items, cosines=True):
    """The k best items of each user that the user has not seen.

    So many more are fetched that removing the seen ones is exact. Equal scores are ordered by item number.

    Args:
        queries: [b, D] user embeddings.
        seen: b arrays of item numbers to leave out.
        cosines: as of the index.

    Returns:
        [b, k] item numbers, best first, and their scores; -1 and nan where fewer than k items are left.
    """
    most = np.bincount(np.unique(keys_of(seen, num_items)) // num_items, minlength=1).max()
    fetched = min(k + int(most), num_items)
    scores, numbers = index.search(unit(queries) if cosines else queries, fetched)
    in_order = np.lexsort((numbers, -scores), axis=1)
    items = drop_seen(np.take_along_axis(numbers, in_order, axis=1), seen, k, num_items)
    return items, looked_up(items, numbers, scores)


def looked_up(wanted, numbers, scores):
    """[b, k] fp32 the score that each wanted number has; nan for -1.

    Args:
        wanted: [b, k] numbers, of which the same row of `numbers` holds each once.
        numbers, scores: [b, n]
    """
    order = np.argsort(numbers, axis=1, kind="stable")
    row = np.arange(len(numbers))[:, None]
    stride = int(max(numbers.max(initial=0), wanted.max(initial=0))) + 2  # sets the rows apart
    keys = (np.take_along_axis(numbers, order, axis=1) + 1 + row * stride).ravel()
    place = np.searchsorted(keys, (wanted + 1 + row * stride).ravel()) % max(numbers.shape[1], 1)
    column = np.take_along_axis(order, place.reshape(wanted.shape), axis=1)
    found = np.take_along_axis(np.asarray(scores, np.float32), column, axis=1)
    return np.where(wanted >= 0, found, np.float32(np.nan))


def drop_seen(numbers, seen, k, num_items):
    """[b, n] ranked item numbers -> [b, k] the first k that are not in the row's seen items, then -1."""
    row = np.arange(len(numbers))[:, None] * num_items
    keep = ~np.isin(numbers + row, keys_of(seen, num_items))
    first = np.argsort(~keep, axis=1, kind="stable")[:, :k]  # kept ones in front, order unchanged
    best = np.take_along_axis(np.where(keep, numbers, -1), first, axis=1)
    return np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=-1)


def keys_of(seen, num_items):
    """[n] a number for each item of each row, which no other row has: row * num_items + item."""
    row = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    return row * num_items + np.concatenate(seen).astype(np.int64)
