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
            vectors: [M, D] fp32.
            half: hold them in fp16, on GPUs.
            gpus: numbers of those it lies on; None = this rank's, or all where there is one rank.
        """
        faiss = import_faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        gpus = gpus_of(faiss) if gpus is None else gpus
        self.index, self.most = faiss.IndexFlatIP(vectors.shape[1]), MOST_ON_GPU if gpus else len(vectors)
        with watchdog.busy("building the index"):
            self.index.add(vectors)
        if gpus:
            self.index = on_gpus(faiss, self.index, gpus, vectors.nbytes // (2 if half else 1), half)

    def search(self, queries, k):
        """[b, D] queries -> [n] user and [n] vector, of the k nearest of each; fewer where a score is nan."""
        _, numbers = self.index.search(queries, k)
        rows, columns = np.nonzero(numbers >= 0)
        return rows, numbers[rows, columns]


def save_index(vectors, path):
    """[M, D] fp32 as an index that plain FAISS reads."""
    faiss = import_faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(path))


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
