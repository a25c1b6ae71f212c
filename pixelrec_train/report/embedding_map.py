"""Item embeddings in two dimensions, and how far they are from a collapse."""

import numpy as np

from pixelrec_train.evaluation.index import unit

ALIKE = 0.99  # cosine from which training takes two items for one product, as --nce_thres
AT_ONCE = 1024  # rows of cosines


def embedding_map(embeddings):
    """{"xy": [n, 2], "explained": [2]}: the two directions along which unit vectors differ most.

    Principal components of the directions, from the eigenvectors of their covariance; of each, the sign that
    makes its largest part positive, so that a map is the same every time.

    Args:
        embeddings: [n, D]
    """
    rows = unit(embeddings, np.float64)
    centred = rows - rows.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    xy = np.pad(centred @ axes, ((0, 0), (0, 2 - axes.shape[1])))  # of one dimension: a line
    shares = np.pad(values[::-1][:2], (0, 2 - axes.shape[1])) / max(values.sum(), 1e-12)
    return {"xy": np.round(xy, 4).tolist(), "explained": np.round(shares, 4).tolist()}


def gauges(embeddings):
    """{figure: value} of [n, D] embeddings; of directions alone, as cosines rank.

    mean_cosine: over all pairs of different items; 1 = collapsed, about 0 = spread in all directions.
    effective_rank: e to the entropy of the singular values' shares, 1 to min(n, D): in how many directions
    items differ (Roy and Vetterli 2007; RankMe, arXiv:2210.02885).
    alike: share of items whose nearest other item has a cosine of at least 0.99.
    """
    rows = unit(embeddings, np.float64)
    n = len(rows)
    total = np.square(rows.sum(0)).sum()
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(rows.T @ rows), 0))
    shares = values[values > 0] / values.sum()
    nearest = np.empty(n)
    for first in range(0, n, AT_ONCE):
        cosines = rows[first : first + AT_ONCE] @ rows.T
        np.fill_diagonal(cosines[:, first:], -1)
        nearest[first : first + AT_ONCE] = cosines.max(1)
    return {
        "items": n,
        "mean_cosine": float((total - n) / max(n * (n - 1), 1)),
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "alike": float((nearest >= ALIKE).mean()),
    }
