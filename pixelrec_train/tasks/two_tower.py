"""The two-tower objective: find the next item among a pool of negatives gathered from all ranks."""

import torch

from pixelrec_train.engine.task import RANKED, Objective, Task
from pixelrec_train.errors import TrainingStopped
from pixelrec_train.losses.nce import nce_loss
from pixelrec_train.model.adapters import write_adapters_of_towers

COLLAPSED_LOG_STEPS = 20


class TwoTowerTask(Task):
    """model + loss; task(batch) -> (loss, metrics). The loop knows nothing else."""

    objective = Objective(
        shown={
            "nce_top1_acc": ".3f", "nce_top10_acc": ".3f", "nce_samples": ".1f", "logit_scale": ".2f",
            "item_cosine": ".3f",
        },
        judged=("valid_loss", "recall@10", "ndcg@10", "cold_recall@10"),
        panels={
            "loss (nats)": ("loss", "valid_loss"),
            "in-pool accuracy": ("nce_top1_acc", "nce_top10_acc"),
            "validation": ("recall@10", "ndcg@10"),
        },
        best_by="ndcg@10",
        others=("valid_loss", *RANKED, *(f"cold_{name}" for name in RANKED)),
    )  # fmt: skip

    def __init__(self, model, nce, tokenizer_dir):
        """nce: NceFlags; tokenizer_dir: of the item LLM, whose files an export takes along."""
        super().__init__()
        self.model, self.tokenizer_dir = model, tokenizer_dir
        self.same_item_cosine, self.nce_chunk = nce.nce_thres, nce.nce_chunk
        self.every_position_weighs_the_same = nce.loss_weighting == "position"
        self.collapsed = 0

    def forward(self, batch):
        user, target, pool, logit_scale = self.model(batch)
        valid, beside = batch.valid, None
        if batch.candidates is not None:
            user, target = (x.flatten(0, 1)[batch.candidates.places].unsqueeze(0) for x in (user, target))
            valid, beside = valid.new_ones(user.shape[:2]), self.beside(batch.candidates)
        loss, metrics = nce_loss(
            user, target, pool, valid, logit_scale, same_item_cosine=self.same_item_cosine,
            chunk=self.nce_chunk, count=self.count(batch), beside=beside,
        )  # fmt: skip
        if self.model.reads_texts:
            computed = self.model.item_llm.computed_tokens(batch.items.texts, batch.chunks)
            metrics["token_efficiency"] = batch.num_tokens / computed
            metrics["token_imbalance"] = batch.token_imbalance
        return loss, metrics

    def beside(self, candidates):
        """Candidates -> [P] of the targets and [P, M] of the pool: what is added to the towers' scores."""
        right, wrong = candidates.of_target, candidates.offsets
        if self.model.offsets is None:
            right, wrong = right.sum(0), wrong.sum(0)  # of none: zeros
        else:
            right, wrong = self.model.offsets(right), self.model.offsets(wrong)
        return right, wrong.masked_fill(candidates.left_out, -torch.inf)

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

    def profiled(self):
        towers = {"item_llm": self.model.item_llm, "user_llm": self.model.user_llm}
        return {name: tower for name, tower in towers.items() if tower is not None}

    def export(self, directory, tensors):
        """See HLLMModel.export; adapters of its towers beside it. tensors are this task's."""
        inner = {k.removeprefix("model."): v for k, v in tensors.items()}
        self.model.export(directory, inner, self.tokenizer_dir)
        write_adapters_of_towers(self.model, directory, inner)
