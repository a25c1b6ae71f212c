"""The sequential baselines' objective: the next item, by softmax cross-entropy over all or sampled items."""

import torch
import torch.nn.functional as F

from pixelrec_train.engine.task import RANKED, Objective, Task


class NextItemTask(Task):
    """model + loss, as the loop wants them; reads a SequenceBatch.

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
        """Mean over valid positions of all ranks, in nats; "top1_acc" the share of targets ranked first.

        With negatives, the softmax is over them and the target; a negative that is the target counts once.
        """
        # Padding is left out before the catalogue's scores are made: most histories are short.
        hidden = self.model(batch.items[:, :-1], batch.times[:, :-1])[batch.valid]  # [V, D]
        target = batch.items[:, 1:][batch.valid]  # [V]
        if len(batch.negatives):
            vectors = F.embedding(target, self.model.items)
            scores = hidden @ F.embedding(batch.negatives, self.model.items).T  # [V, M]
            scores = scores.masked_fill(batch.negatives == target[:, None], -torch.inf)
            scores = torch.cat([(hidden * vectors).sum(-1, keepdim=True), scores], dim=-1)
            target = torch.zeros_like(target)
        else:
            scores = self.model.scores(hidden)  # [V, num_items]
        count = batch.mean_steps.clamp(min=1e-6)
        loss = F.cross_entropy(scores.float(), target, reduction="sum") / count
        return loss, {"top1_acc": (scores.argmax(-1) == target).sum() / count}

    def export(self, directory, tensors):
        self.model.export(directory, {k.removeprefix("model."): v for k, v in tensors.items()})
