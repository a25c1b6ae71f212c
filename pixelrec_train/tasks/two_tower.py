"""The two-tower objective: find the next item among a pool of negatives gathered from all ranks."""

from torch import nn

from pixelrec_train.errors import TrainingStopped
from pixelrec_train.losses.nce import nce_loss

COLLAPSED_LOG_STEPS = 20


class TwoTowerTask(nn.Module):
    """model + loss; task(batch) -> (loss, metrics). The loop knows nothing else."""

    def __init__(self, model, config):
        super().__init__()
        self.model, self.tokenizer_dir = model, config.item_dir
        self.same_item_cosine, self.nce_chunk = config.nce_thres, config.nce_chunk
        self.every_position_weighs_the_same = config.loss_weighting == "position"
        self.collapsed = 0

    def forward(self, batch):
        user, target, pool, logit_scale = self.model(batch)
        loss, metrics = nce_loss(
            user, target, pool, batch.valid, logit_scale,
            same_item_cosine=self.same_item_cosine, chunk=self.nce_chunk, count=self.count(batch),
        )  # fmt: skip
        if self.model.reads_texts:
            computed = self.model.item_llm.computed_tokens(batch.items.texts, batch.chunks)
            metrics["token_efficiency"] = batch.num_tokens / computed
            metrics["token_imbalance"] = batch.token_imbalance
        return loss, metrics

    def count(self, batch):
        """What the loss sums are divided by.

        DeepSpeed averages gradients over ranks. With the mean number of valid positions per rank, that
        average is the mean over all positions of the global batch; with the rank's own number, it is a
        mean of rank means, as in the original.
        """
        return batch.mean_steps if self.every_position_weighs_the_same else batch.valid.sum().float()

    def watch(self, report):
        """Stop a run whose loss has become meaningless.

        When item embeddings bunch, the same-item filter takes every negative for the target: one candidate
        is left, the loss is 0, and nothing is learned.

        Raises:
            TrainingStopped: hardly a negative was left for 20 log steps in a row.
        """
        self.collapsed = self.collapsed + 1 if report["nce_samples"] < 1.5 else 0
        if self.collapsed >= COLLAPSED_LOG_STEPS:
            raise TrainingStopped(
                f"item embeddings have collapsed: for {self.collapsed} log lines only "
                f"{report['nce_samples']:.2f} of the candidates were left after the same-item filter "
                f"(mean cosine of two items {report['item_cosine']:.3f}), so the loss says nothing. "
                f"Try a lower --learning_rate, a longer --warmup_ratio, or --nce_thres 1; "
                f"and check that item texts differ."
            )

    def export(self, directory, tensors):
        """See HLLMModel.export; tensors are this task's."""
        inner = {k.removeprefix("model."): v for k, v in tensors.items()}
        self.model.export(directory, inner, self.tokenizer_dir)
