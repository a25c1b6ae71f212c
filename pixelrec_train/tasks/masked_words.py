"""Finding hidden words: the objective that encoders such as BERT are pretrained by."""

from pathlib import Path

import torch
import torch.nn.functional as F

from pixelrec_train import distributed
from pixelrec_train.engine.task import Objective, Task
from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import second_names
from pixelrec_train.model.model_files import write_like

ENCODER = "encoder"


class MaskedTask(Task):
    """model + loss, as the loop wants them."""

    objective = Objective(
        shown={"masked_top1": ".3f"},
        judged=("valid_loss",),
        panels={"loss (nats)": ("loss", "valid_loss"), "right words": ("masked_top1",)},
        best_by="valid_loss",
        others=("valid_loss",),
    )

    def __init__(self, model, model_dir):
        """model: transformers' AutoModelForMaskedLM; model_dir: where it came from."""
        super().__init__()
        self.model, self.source = model, model_dir

    def losses(self, batch):
        """[N] nats of the chosen words, and whether each has the highest score."""
        logits = self.model(input_ids=batch.ids, attention_mask=batch.real.long()).logits
        logits = logits[batch.rows, batch.columns].float()
        return F.cross_entropy(logits, batch.labels, reduction="none"), logits.argmax(-1) == batch.labels

    def forward(self, batch):
        """Mean over all chosen words of all ranks; metrics: "masked_top1"."""
        count = torch.full((), float(len(batch.labels)), device=batch.labels.device)
        mean = distributed.coming_mean(count)
        losses, right = self.losses(batch)
        return distributed.over_all(losses.sum(), mean), {"masked_top1": (right.float().sum(), count)}

    def weight(self, batch):
        return float(len(batch.labels))

    @torch.no_grad()
    def judge(self, batches):
        """{"valid_loss": mean nats of hidden words}. Raises InputError where there is none."""
        sums = torch.zeros(2, dtype=torch.float64, device=distributed.device())
        for batch in batches:
            losses, _ = self.losses(batch.to(distributed.device()))
            sums += torch.stack([losses.double().sum(), sums.new_tensor(len(losses))])
        total, count = distributed.mean_tensor(sums).tolist()
        if not count:
            raise InputError("the texts of --eval_file hold no word.")
        return {"valid_loss": total / count}

    def export(self, directory, tensors):
        """encoder/: a directory that plain transformers loads, and --item_model_dir takes."""
        weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        for name in second_names(self.model):
            weights.pop(name, None)
        write_like(self.source, Path(directory) / ENCODER, weights, type(self.model).__name__)
