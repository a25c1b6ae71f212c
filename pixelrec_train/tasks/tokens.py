"""The generative objective: say the next item's semantic id, code by code, and what items are called."""

import shutil
from pathlib import Path

from torch import nn

SEMANTIC_IDS = "semantic_ids.json"
LLM = "llm"


class GenerativeTask(nn.Module):
    """model + loss; task(batch) -> (loss, metrics). The loop knows nothing else."""

    def __init__(self, model, config):
        super().__init__()
        self.model, self.source, self.semantic_ids = model, config.model_dir, config.semantic_ids

    def forward(self, batch):
        return self.model(batch)

    def watch(self, report):
        """Nothing besides the loss can go wrong."""

    def export(self, directory, tensors):
        """llm/: a causal LM that plain transformers loads; semantic_ids.json: what its itemic tokens mean."""
        inner = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        self.model.export(Path(directory) / LLM, inner, self.source)
        shutil.copy(self.semantic_ids, Path(directory) / SEMANTIC_IDS)
