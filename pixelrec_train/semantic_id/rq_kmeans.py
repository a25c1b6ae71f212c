"""Residual k-means: at each level k-means of what the levels before have left; freely, or in equal parts."""

import numpy as np
import torch

from pixelrec_train.errors import InputError
from pixelrec_train.libraries import import_faiss
from pixelrec_train.semantic_id.balanced import balanced_assignment, check_size
from pixelrec_train.semantic_id.quantiser import nearest_codes

POINTS_PER_CODE = 1024  # k-means learns from at most so many; further ones do not move its centroids
BALANCED_ROUNDS = 6  # assignments in nearly equal parts after free k-means, at most
WORTH_IT = 0.01  # share of the error that a round must save for another one to follow


def rq_kmeans(vectors, levels, codebook_size, iterations, seed, note):
    """([L] codebooks [K, E], [N, L] codes): each level is faiss's k-means, each code the nearest.

    Raises:
        InputError: there are fewer items than codes.

    Source: OpenOneRec's "ResKmeans", with iterations that count.
    """
    left, codebooks, codes = vectors, [], []
    for level in range(levels):
        codebooks.append(kmeans(left, codebook_size, iterations, seed + level))
        codes.append(nearest_codes(left, codebooks[-1]))
        left = left - codebooks[-1][codes[-1]]
        note(f"level {level + 1} of {levels}: mean squared error {float((left**2).sum(1).mean()):.6g}")
    return codebooks, np.stack(codes, 1).astype(np.int32)


def rq_kmeans_balanced(vectors, levels, codebook_size, iterations, seed, note):
    """The same with codes of equal size: at every level each is given to N/K items, rounded down or up.

    Source: MiniOneRec's constrained RQ-KMeans, without its solver.
    """
    check_size(len(vectors), codebook_size)
    left, codebooks, codes = vectors, [], []
    for level in range(levels):
        centroids = kmeans(left, codebook_size, iterations, seed + level)
        prices, error = None, np.inf
        for _ in range(BALANCED_ROUNDS):
            before = error
            assigned, prices = balanced_assignment(left, centroids, prices, roughly=True)
            centroids = means(left, assigned, centroids)
            error = float(((left - centroids[assigned]) ** 2).sum())
            if error >= (1 - WORTH_IT) * before:
                break
        assigned, _ = balanced_assignment(left, centroids, prices)
        centroids = means(left, assigned, centroids)
        codebooks.append(centroids)
        codes.append(assigned)
        left = left - centroids[assigned]
        note(f"level {level + 1} of {levels}: mean squared error {float((left**2).sum(1).mean()):.6g}")
    return codebooks, np.stack(codes, 1).astype(np.int32)


def kmeans(vectors, k, iterations, seed):
    """[k, E] centroids."""
    if len(vectors) < k:
        raise InputError(
            f"--codebook_size {k:,} is more than the {len(vectors):,} items there are. Lower it."
        )
    faiss = import_faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    clustering = faiss.Kmeans(
        vectors.shape[1], k, niter=iterations, seed=seed % 2**31, min_points_per_centroid=1,
        max_points_per_centroid=POINTS_PER_CODE,
    )  # fmt: skip
    clustering.train(vectors)
    return clustering.centroids.astype(np.float32)


def means(vectors, assigned, centroids):
    """[K, E] mean of each part; the centroid there is where a part is empty."""
    order = np.argsort(assigned, kind="stable")
    parts, starts, counts = np.unique(assigned[order], return_index=True, return_counts=True)
    found = centroids.copy()
    found[parts] = np.add.reduceat(vectors[order].astype(np.float64), starts, axis=0) / counts[:, None]
    return found
