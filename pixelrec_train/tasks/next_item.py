"""The sequential baselines' objective: the next item, by softmax cross-entropy over all or sampled items."""

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

        With negatives, the softmax is over them and the target, and so are the ranks.
        """
        # Places without an item are left out before the catalogue's scores are made.
        valid = batch.valid
        hidden = self.model(batch.items, batch.times, batch.place, batch.history)[valid]  # [V, D]
        target = batch.target[valid]  # [V]
        total, hits = self.model.summed_loss(hidden, target, batch.negatives, batch.log_expected)
        count = batch.mean_steps.clamp(min=1e-6)
        return total / count, {"top1_acc": hits / count}

    def export(self, directory, tensors):
        self.model.export(directory, {k.removeprefix("model."): v for k, v in tensors.items()})
