"""The generative objective: say the next item's semantic id, code by code, and what items are called."""

import shutil
from pathlib import Path

from pixelrec_train.engine.task import RANKED, Objective, Task

SEMANTIC_IDS = "semantic_ids.json"
LLM = "llm"


class GenerativeTask(Task):
    """model + loss; task(batch) -> (loss, metrics). The loop knows nothing else."""

    objective = Objective(
        shown={"itemic_loss": ".4f", "text_loss": ".4f"} | {f"level{n}_top1": ".3f" for n in (1, 2, 3)},
        judged=("valid_loss", "recall@10", "ndcg@10"),
        panels={
            "loss (nats)": ("loss", "valid_loss", "itemic_loss", "text_loss"),
            "right codes": tuple(f"level{n}_top1" for n in (1, 2, 3, 4)),
            "validation": ("recall@10", "ndcg@10"),
        },
        best_by="ndcg@10",
        others=tuple(way + name for way in ("", "sid_", "average_") for name in RANKED),
    )

    def __init__(self, model, source, semantic_ids):
        """source: the directory the model came from; semantic_ids: the file of the catalogue's ids."""
        super().__init__()
        self.model, self.source, self.semantic_ids = model, source, semantic_ids

    def forward(self, batch):
        return self.model(batch)

    def export(self, directory, tensors):
        """llm/: a causal LM that plain transformers loads; semantic_ids.json: what its itemic tokens mean."""
        inner = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        self.model.export(Path(directory) / LLM, inner, self.source)
        shutil.copy(self.semantic_ids, Path(directory) / SEMANTIC_IDS)
