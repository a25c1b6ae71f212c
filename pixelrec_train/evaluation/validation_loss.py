"""The training loss on what is held out: of two towers, from embeddings that evaluation has computed anyway;
of a language model, of any texts."""

import math

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.losses.nce import nce_loss
from pixelrec_train.run import rehearsal, watchdog
from pixelrec_train.run.signals import go_on


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
    def __call__(self, user, target, left_out):
        """[b, D] user embeddings, [b] targets -> the sum of their losses in nats; left_out is not asked."""
        positive = self.catalogue[torch.from_numpy(target.astype(np.int64))].to(user.device)
        valid = torch.ones(len(user), 1, dtype=torch.bool, device=user.device)
        loss, _ = nce_loss(
            user.unsqueeze(1), positive.unsqueeze(1), self.pool, valid, self.logit_scale,
            same_item_cosine=self.same_item_cosine, chunk=self.chunk,
            count=torch.ones((), device=user.device),
        )  # fmt: skip
        return loss


class SoftmaxLoss:
    """Of two towers that learn by a softmax over all training items, or with offsets: over all items."""

    def __init__(self, items, train_counts, scale):
        """items: [num_items, D] as they are ranked; scale: of the products that make the scores."""
        self.items, self.scale = torch.from_numpy(items).to(distributed.device()), scale
        self.is_new = torch.from_numpy(train_counts == 0).to(distributed.device())

    @torch.no_grad()
    def __call__(self, user, target, left_out):
        """[b, D] users as they are ranked with, [b] targets, b arrays of items that are no candidates -> the
        sum of their losses in nats."""
        scores = self.scale * user.to(self.items.device) @ self.items.T
        rows, target = torch.arange(len(user)), torch.from_numpy(target.astype(np.int64))
        right = scores[rows, target].clone()
        scores[:, self.is_new] = -torch.inf
        for row, items in enumerate(left_out):
            scores[row, torch.from_numpy(np.asarray(items, np.int64))] = -torch.inf
        scores[rows, target] = right
        return (scores.logsumexp(1) - right).sum()


@torch.no_grad()
def token_loss(task, batches):
    """{"valid_loss": mean loss in nats, by weight, of all labels of all ranks, "perplexity": e to that power}

    Args:
        task: TokenTask, in evaluation mode.
        batches: TokenBatches of this rank; all ranks have equally many, as under ZeRO-3 each is a collective.
            One may have no label.

    Raises:
        InputError: there is no label at all.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=distributed.device())
    for batch in batches:
        watchdog.at("evaluation: loss")
        go_on()
        batch = batch.to(distributed.device())
        losses, _ = task.model.token_losses(batch)
        weights = torch.ones_like(losses) if batch.weights is None else batch.weights
        sums += torch.stack([(losses * weights).sum(), weights.sum()])
        rehearsal.block_done()
    total, weight = distributed.mean_tensor(sums).tolist()
    if not weight:
        raise InputError("nothing is to be predicted in the validation texts, so they have no loss.")
    loss = total / weight
    return {"valid_loss": loss, "perplexity": math.inf if loss > 700 else math.exp(loss)}
