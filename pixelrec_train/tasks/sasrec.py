"""The SASRec baseline's objective: the next item among all items, by full-softmax cross-entropy."""

import torch.nn.functional as F

from pixelrec_train.engine.task import RANKED, Objective, Task


class SASRecTask(Task):
    """model + loss, as the loop wants them; reads the windows of a TwoTowerBatch, whose texts are unread.

    Source: cross-entropy over the whole catalogue in place of SASRec's one sampled negative makes it a far
    stronger baseline (Klenitskiy and Vasilev, RecSys 2023, arXiv:2309.07602).
    """

    objective = Objective(
        shown={"top1_acc": ".3f"},
        judged=("recall@10", "ndcg@10"),
        panels={"loss (nats)": ("loss",), "validation": ("recall@10", "ndcg@10")},
        best_by="ndcg@10",
        others=RANKED,
    )

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        """Mean over valid positions of all ranks, in nats; "top1_acc" the share of targets ranked first."""
        numbers, valid = batch.items.numbers, batch.valid
        # Padding is left out before the catalogue's scores are made: most windows are short.
        scores = self.model.scores(self.model(numbers[batch.history])[valid])  # [V, num_items]
        target = numbers[batch.target][valid]  # [V]
        count = batch.mean_steps.clamp(min=1e-6)
        loss = F.cross_entropy(scores.float(), target, reduction="sum") / count
        return loss, {"top1_acc": (scores.argmax(-1) == target).sum() / count}

    def export(self, directory, tensors):
        self.model.export(directory, {k.removeprefix("model."): v for k, v in tensors.items()})
