"""FAISS: every item compared by inner product (IndexFlatIP), on CPUs or on GPUs."""

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import import_faiss
from pixelrec_train.run import watchdog

MOST_ON_GPU = 2048  # neighbours that FAISS finds at a time there
SHARE = 0.5  # of a GPU's free memory that a whole copy may take; a larger one is cut over the GPUs


def way_of_search(retrieval):
    """ "faiss", "faiss_fp16" or "exact", of --retrieval.

    Raises:
        InputError: FAISS is asked for and not there, or in fp16 where it has no GPU.
    """
    if retrieval == "auto":
        retrieval = "exact" if distributed.uses_gpu() else "faiss"
    if retrieval == "exact":
        return retrieval
    faiss = import_faiss()
    if retrieval == "faiss_fp16" and not gpus_of(faiss):
        lacking = "this FAISS is for CPUs alone" if distributed.uses_gpu() else "this run computes on CPUs"
        raise InputError(
            f"--retrieval faiss_fp16 needs a GPU and FAISS for GPUs; {lacking}. Take --retrieval faiss or "
            "exact, or install it: pip uninstall -y faiss-cpu && pip install faiss-gpu."
        )
    return retrieval


class FaissIndex:
    def __init__(self, vectors, half=False, gpus=None):
        """
        Args:
            vectors: Vectors.
            half: hold them in fp16, on GPUs.
            gpus: numbers of those it lies on; None = this rank's, or all where there is one rank.
        """
        faiss = import_faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        gpus = gpus_of(faiss) if gpus is None else gpus
        self.most = MOST_ON_GPU if gpus else len(vectors)
        parts = (part.cpu().numpy() for part in vectors.parts(0, len(vectors)))
        with watchdog.busy("building the index"):
            self.index = flat(faiss, len(vectors), vectors.width, parts)
        if gpus:
            size = len(vectors) * vectors.width * (2 if half else 4)
            self.index = on_gpus(faiss, self.index, gpus, size, half)

    def search(self, queries, k):
        """[b, D] queries -> [n] user and [n] vector, of the k nearest of each; fewer where a score is nan."""
        _, numbers = self.index.search(queries, k)
        rows, columns = np.nonzero(numbers >= 0)
        return rows, numbers[rows, columns]


def flat(faiss, count, width, parts):
    """An index of count vectors, which come in parts of [m, width] fp32 and lie there once."""
    index = faiss.IndexFlatIP(width)
    index.codes.resize(4 * count * width)  # as it grows by itself it would hold up to twice as much
    for part in parts:
        index.add(part)
    return index


def save_index(count, width, parts, path):
    """Vectors as an index that plain FAISS reads. Arguments: as of flat."""
    faiss = import_faiss()
    faiss.write_index(flat(faiss, count, width, parts), str(path))


def gpus_of(faiss):
    """Numbers of the GPUs that this rank searches on: its own, or all where it is alone on its machine.

    Empty where the run computes on CPUs, or faiss has been built for them alone.
    """
    if not distributed.uses_gpu() or not hasattr(faiss, "StandardGpuResources"):
        return []
    if distributed.ranks_here() > 1:
        return [distributed.local_rank()]
    return list(range(faiss.get_num_gpus()))


def on_gpus(faiss, index, gpus, size, half):
    """The index on these GPUs: a copy on each, or a part where a copy would fill more than SHARE of one.

    Args:
        size: of a copy, in bytes.
    """
    options = faiss.GpuMultipleClonerOptions()
    options.useFloat16 = half
    options.shard = len(gpus) > 1 and size > SHARE * min(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
    return faiss.index_cpu_to_gpus_list(index, co=options, gpus=gpus)
