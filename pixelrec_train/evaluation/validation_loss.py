"""The training loss on held-out users, from embeddings that evaluation has computed anyway."""

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.losses.nce import nce_loss


class ValidationLoss:
    """NCE loss of the held-out target against one fixed pool, as large as the training pool.

    The pool is drawn once (seed) from the training items, so epochs and runs of one seed are comparable.
    """

    def __init__(self, catalogue, logit_scale, train_counts, pool_size, same_item_cosine, seed, chunk=None):
        self.catalogue = torch.from_numpy(catalogue)
        pool = np.random.default_rng([seed, 2]).choice(np.flatnonzero(train_counts), pool_size)
        self.pool = self.catalogue[pool].to(distributed.device())  # [M, D]
        self.logit_scale, self.same_item_cosine, self.chunk = logit_scale, same_item_cosine, chunk

    @torch.no_grad()
    def __call__(self, user, target):
        """[b, D] user embeddings, [b] targets -> the sum of their losses in nats."""
        positive = self.catalogue[torch.from_numpy(target.astype(np.int64))].to(user.device)
        valid = torch.ones(len(user), 1, dtype=torch.bool, device=user.device)
        loss, _ = nce_loss(
            user.unsqueeze(1), positive.unsqueeze(1), self.pool, valid, self.logit_scale,
            same_item_cosine=self.same_item_cosine, chunk=self.chunk,
            count=torch.ones((), device=user.device),
        )  # fmt: skip
        return loss
