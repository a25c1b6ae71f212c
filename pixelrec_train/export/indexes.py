"""FAISS indexes that give up some recall for speed or size; how much is measured against exact search."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelrec_train.errors import InputError
from pixelrec_train.libraries import import_faiss

K = 100  # items of a list, of which recall is measured
PER_CENTROID = 39  # vectors that faiss wants to learn each of its centroids from, or it warns
FEWEST_CELLS, FEWEST_BITS, MOST_BITS = 4, 4, 8
EF_CONSTRUCTION, MOST_CANDIDATES = 200, 6400
TIMED_S = 1.0  # how long each index is asked, one query after the other


class Sizes(NamedTuple):
    """What a person may set; None = by the number of items and their width."""

    nlist: int | None = None
    hnsw_m: int = 32
    pq_m: int | None = None


class Measured(NamedTuple):
    """A row of the table."""

    index: str
    settings: str
    recall: float  # at K, against exact search
    megabytes: float  # of its file, 10^6 bytes
    queries_per_s: float  # one after the other, on one thread
    reached: bool  # whether the wanted recall was, on the queries it was chosen by


class Truth:
    """Exact search, and how far another falls short of it.

    An item counts as found where its exact score is at least that of the exact list's last: which of equals
    are named is nobody's fault.
    """

    def __init__(self, vectors, queries):
        """vectors: [N, D] fp32, searched by inner product; queries: [n, D] fp32."""
        faiss = import_faiss()
        self.vectors, self.queries, self.k = vectors, queries, min(K, len(vectors))
        exact = faiss.IndexFlatIP(vectors.shape[1])
        exact.add(vectors)
        scores, _ = exact.search(queries, self.k)
        self.last = scores[:, -1:] - 1e-5 * np.abs(scores).max(1, keepdims=True)  # [n, 1], rounding aside

    def recall(self, index):
        """Share of the k exact items that the index finds, on average over the queries."""
        _, numbers = index.search(self.queries, self.k)
        scores = np.stack([
            self.vectors[row] @ query for row, query in zip(numbers, self.queries, strict=True)
        ])  # fmt: skip
        return float(((scores >= self.last) & (numbers >= 0)).mean())


def check_learnable(kinds, num_items, width, sizes):
    """Raises InputError where an index cannot be learned from so many vectors, or not of this width."""
    fewest = {"ivf": FEWEST_CELLS, "pq": 2**FEWEST_BITS}
    for kind in kinds:
        if num_items < (needed := PER_CENTROID * fewest.get(kind, 0)):
            raise InputError(
                f"--index {kind} learns from the items themselves, and {num_items:,} are too few: it needs "
                f"{needed:,} at least. Leave it out; flat compares so few exactly, and fast."
            )
    if sizes.nlist and "ivf" in kinds and num_items < PER_CENTROID * sizes.nlist:
        raise InputError(
            f"--nlist {sizes.nlist} cells need {PER_CENTROID * sizes.nlist:,} items to learn from, and there "
            f"are {num_items:,}. At most {num_items // PER_CENTROID} fit, or leave it out."
        )
    if sizes.pq_m and "pq" in kinds and width % sizes.pq_m:
        raise InputError(
            f"--pq_m {sizes.pq_m} does not divide the {width} numbers of a vector into equal parts. Use one "
            f"of {', '.join(map(str, divisors(width)))}, or leave it out."
        )


def build(kind, vectors, sizes, wanted, tuning, cosines=True):
    """(the index, its settings in words, whether it reaches the wanted recall).

    Args:
        kind: flat, ivf, hnsw or pq.
        vectors: [N, D] fp32.
        wanted: recall; the fastest (of pq the smallest) index that has it is taken, or the most exact one.
        tuning: Truth over the queries that it is chosen by.
        cosines: whether all vectors have length 1.
    """
    for settings, index in LADDERS[kind](vectors, sizes, cosines):
        told = ", ".join(f"{name} {value}" for name, value in settings.items())
        if reached := kind == "flat" or tuning.recall(index) >= wanted:
            break
    return index, told, reached


def flat(vectors, sizes, cosines):
    """Every item compared."""
    yield {}, filled(import_faiss().IndexFlatIP(vectors.shape[1]), vectors)


def ivf(vectors, sizes, cosines):
    """Items in cells around learned centres; the nprobe cells nearest to a query are compared.

    4 √N cells are what faiss recommends up to a million items.
    """
    faiss, (count, width) = import_faiss(), vectors.shape
    nlist = sizes.nlist or min(round(4 * count**0.5), count // PER_CENTROID)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, nlist, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = cosines
    filled(index, vectors)
    for nprobe in rungs(1, nlist):
        index.nprobe = nprobe
        yield {"nlist": nlist, "nprobe": nprobe}, index


def hnsw(vectors, sizes, cosines):
    """A graph of near neighbours that a search walks along, with efSearch candidates at hand."""
    faiss, (count, width) = import_faiss(), vectors.shape
    index = faiss.IndexHNSWFlat(width, sizes.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    filled(index, vectors)
    for ef in rungs(min(K, count), min(count, MOST_CANDIDATES)):
        index.hnsw.efSearch = ef
        yield {"M": sizes.hnsw_m, "efSearch": ef}, index


def pq(vectors, sizes, cosines):
    """Vectors cut into m parts, each kept as the number of its nearest learned centroid."""
    faiss, (count, width) = import_faiss(), vectors.shape
    bits = min(MOST_BITS, (count // PER_CENTROID).bit_length() - 1)
    for m in [sizes.pq_m] if sizes.pq_m else [m for m in divisors(width) if 8 * m >= width]:
        index = faiss.IndexPQ(width, m, bits, faiss.METRIC_INNER_PRODUCT)
        yield {"m": m, "bits": bits}, filled(index, vectors)


# Each yields (settings, index) from the fastest (of pq the smallest) to the most exact; the index may be the
# same one, set anew.
LADDERS = {"flat": flat, "ivf": ivf, "hnsw": hnsw, "pq": pq}
KINDS = tuple(LADDERS)


def filled(index, vectors):
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    return index


def rungs(first, last):
    """Whole numbers from the first to the last, each about √2 times the one before."""
    steps = range(2 * int(np.log2(max(last / first, 1))) + 2)
    return sorted({last, *(n for step in steps if (n := round(first * 2 ** (step / 2))) < last)})


def divisors(width):
    return [m for m in range(1, width + 1) if width % m == 0]


def speed(index, queries, k, seconds):
    """Queries per second, one after the other on one thread."""
    faiss = import_faiss()
    threads, asked = faiss.omp_get_max_threads(), 0
    faiss.omp_set_num_threads(1)
    try:
        index.search(queries[:1], k)
        started = time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds or not asked:
            row = asked % len(queries)
            index.search(queries[row : row + 1], k)
            asked += 1
    finally:
        faiss.omp_set_num_threads(threads)
    return asked / spent


def write(kinds, vectors, sizes, wanted, tuning, judging, directory, cosines=True):
    """KIND.faiss of each kind; [Measured], as plain faiss reads them back.

    tuning, judging: Truth of two groups of queries: by one settings are chosen, by the other they are judged.
    """
    faiss, rows = import_faiss(), []
    for kind in kinds:
        index, settings, reached = build(kind, vectors, sizes, wanted, tuning, cosines)
        path = Path(directory) / f"{kind}.faiss"
        faiss.write_index(index, str(path))
        index = faiss.read_index(str(path))
        rows.append(Measured(
            kind, settings, judging.recall(index), path.stat().st_size / 1e6,
            speed(index, judging.queries, judging.k, TIMED_S), reached,
        ))  # fmt: skip
    return rows


def table(rows, k):
    """[Measured] -> Markdown."""
    lines = [f"| index | settings | recall@{k} | MB | queries/s |", "|---|---|---:|---:|---:|"]
    for row in rows:
        short = "" if row.reached else " (less than wanted)"
        cells = row.index, row.settings or "exact", f"{row.recall:.4f}{short}", f"{row.megabytes:.2f}"
        lines.append(f"| {' | '.join(cells)} | {row.queries_per_s:,.0f} |")
    return "\n".join(lines)
