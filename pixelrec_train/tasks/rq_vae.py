"""The RQ-VAE's objective: give the vectors back from their codes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelrec_train import distributed
from pixelrec_train.batch import Tensors
from pixelrec_train.engine.task import Objective, Task
from pixelrec_train.model.backbone import save_tensors

FILE = "rq_vae.safetensors"


@dataclass(frozen=True)
class VectorBatch(Tensors):
    """Embeddings of some items, preprocessed."""

    vectors: Tensor  # [N, D]

    @property
    def counts(self):
        return {"items": len(self.vectors)}


class VectorLoader:
    """Batches of vectors in an order that depends on (seed, epoch) alone; each rank takes its share."""

    def __init__(self, vectors, batch_size, steps, seed):
        """steps: batches of an epoch, which may pass through the vectors several times, or not at all."""
        self.vectors = torch.from_numpy(vectors)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed

    def batches_in(self, epoch):
        return self.steps

    def epoch(self, epoch, skip=0):
        """Batches of one epoch, from number `skip` on."""
        draw = np.random.default_rng([self.seed, epoch])
        slots = self.batch_size * distributed.world_size()
        passes = -(-self.steps * slots // len(self.vectors))
        order = np.concatenate([draw.permutation(len(self.vectors)) for _ in range(passes)])
        first = distributed.rank() * self.batch_size
        for step in range(skip, self.steps):
            start = step * slots + first
            yield VectorBatch(self.vectors[torch.from_numpy(order[start : start + self.batch_size])])


class RQVAETask(Task):
    """model + loss, as the loop wants them."""

    objective = Objective(
        shown={"recon_error": ".4f", "codes_used": ".3f"},
        judged=("valid_loss",),
        panels={
            "loss (share of the variance)": ("loss", "valid_loss"),
            "codes": ("codes_used", "distinct_ids"),
        },
        best_by="explained",
        others=("valid_loss", "distinct_ids"),
    )

    def __init__(self, model, beta, variance):
        """
        Args:
            model: RQVAE.
            beta: weight of the commitment.
            variance: mean squared distance of a vector from the mean of all; the unit of the loss.
        """
        super().__init__()
        self.model, self.beta, self.variance = model, beta, variance

    def forward(self, batch):
        """Squared error of the decoded vectors as a share of their variance, plus beta times the commitment.

        Metrics: "recon_error" the former alone, "codes_used" the share of a level's codes that this batch
        uses, mean of all levels.
        """
        decoded, commitment, codes, _ = self.model(batch.vectors)
        error = (decoded - batch.vectors).pow(2).sum(1).mean() / self.variance
        loss = error + self.beta * commitment / self.variance
        used = [
            torch.zeros_like(count).index_fill(0, code, 1).mean()
            for count, code in zip(self.model.counts, codes.unbind(1), strict=True)
        ]
        return loss, {"recon_error": error, "codes_used": torch.stack(used).mean()}

    @torch.no_grad()
    def judge(self, vectors):
        """{"valid_loss": share of the variance that decoding loses, "explained": 1 - it, "distinct_ids":
        distinct ids / items} over all vectors, [N, D] on the CPU."""
        wrong, codes = 0.0, []
        for part in torch.from_numpy(vectors).split(8192):
            decoded, _, code, _ = self.model(part.to(distributed.device()))
            wrong += float((decoded.cpu() - part).pow(2).sum(dtype=torch.float64))
            codes.append(code.cpu())
        error = wrong / len(vectors) / self.variance
        distinct = len(torch.cat(codes).unique(dim=0)) / len(vectors)
        return {"valid_loss": error, "explained": 1 - error, "distinct_ids": distinct}

    def export(self, directory, tensors):
        save_tensors({k.removeprefix("model."): v for k, v in tensors.items()}, Path(directory) / FILE)
