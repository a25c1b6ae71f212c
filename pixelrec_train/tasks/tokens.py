"""Saying the next token: codes of the next item's semantic id, what items are called, or any text."""

import shutil
from pathlib import Path

import torch

from pixelrec_train import distributed
from pixelrec_train.engine.task import RANKED, Objective, Task

SEMANTIC_IDS = "semantic_ids.json"
LLM = "llm"


class TokenTask(Task):
    """model + loss; task(batch) -> (loss, metrics). The loop knows nothing else."""

    objective = Objective(
        shown={"itemic_loss": ".4f", "text_loss": ".4f"} | {f"level{n}_top1": ".3f" for n in (1, 2, 3)},
        judged=("valid_loss", "recall@10", "ndcg@10"),
        panels={
            "loss (nats)": ("loss", "itemic_loss", "text_loss", "valid_loss"),
            "right codes": tuple(f"level{n}_top1" for n in (1, 2, 3, 4)),
            "validation": ("recall@10", "ndcg@10"),
        },
        best_by="ndcg@10",
        others=("valid_loss", *(way + name for way in ("", "sid_", "average_") for name in RANKED)),
    )

    def __init__(self, model, model_dir, semantic_ids=None):
        """
        Args:
            model: TokenModel.
            model_dir: the directory it came from, see its export.
            semantic_ids: file that says what its itemic tokens mean; None where it has none.
        """
        super().__init__()
        self.model, self.source, self.semantic_ids = model, model_dir, semantic_ids
        edges = model.vocabulary.level_edges if model.vocabulary else []
        self.register_buffer("level_edges", torch.tensor(edges, dtype=torch.long), persistent=False)

    def forward(self, batch):
        """(loss, metrics): mean cross-entropy in nats, by weight, of all labels of all ranks.

        DeepSpeed averages gradients over ranks; divided by the mean weight of the labels per rank, that
        average is the mean over all labels. Metrics are (sum, count) of this rank, see `by_label`.
        """
        total, losses, best = self.model(batch)
        weight = total.new_tensor(len(losses)) if batch.weights is None else batch.weights.sum()
        weight = distributed.mean_tensor(weight)
        return total / torch.where(weight > 0, weight, 1.0), self.by_label(batch.labels, losses, best)

    def by_label(self, labels, losses, best):
        """{name: (sum, count)} by what the label is, not by what stands before it; weights play no part.

        text_loss: of the base model's words; itemic_loss: of codes, begin and end; level{n}_loss and
        level{n}_top1: of the codes of level n, from 1: loss in nats, share whose score is the highest of all.
        """
        kind = torch.bucketize(labels, self.level_edges, right=True)  # 0 text, 1 … L levels, L + 1 begin, end
        each = torch.stack([torch.ones_like(losses), losses, (best == labels).float()])
        sums = each.new_zeros(3, len(self.level_edges) + 1).index_add_(1, kind, each)
        (count, loss, right), itemic = sums, sums[:, 1:].sum(1)
        metrics = {"text_loss": (loss[0], count[0]), "itemic_loss": (itemic[1], itemic[0])}
        for n in range(1, len(self.level_edges)):
            metrics |= {f"level{n}_loss": (loss[n], count[n]), f"level{n}_top1": (right[n], count[n])}
        return metrics

    def export(self, directory, tensors):
        """llm/: a causal LM that plain transformers loads; semantic_ids.json: what its itemic tokens mean."""
        inner = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        self.model.export(Path(directory) / LLM, inner, self.source)
        if self.semantic_ids:
            shutil.copy(self.semantic_ids, Path(directory) / SEMANTIC_IDS)
