"""Where a run stands: everything that moves while training, besides weights and optimizer."""

import dataclasses
from dataclasses import dataclass, field

from pixelrec_train.engine.window import Window


def steps_per_epoch(micro_batches, config):
    """Optimizer steps in that many micro-batches of a rank; the last step may have fewer than the others."""
    return -(-micro_batches // config.gradient_accumulation_steps)


@dataclass
class TrainState:
    total_steps: int  # optimizer steps of the whole run
    epoch: int = 0  # finished epochs
    batch: int = 0  # micro-batches done in the current epoch, per rank
    step: int = 0  # optimizer steps done
    best_score: float | None = None  # validation ndcg@10
    best_epoch: int | None = None
    checkpoints: list[str] = field(default_factory=list)  # names this run wrote and still keeps, oldest first
    window: Window | None = None  # what has been summed up since the last log line, on this rank

    def finish_epoch(self, score):
        """Count the epoch; returns whether its score is the best so far (a tie keeps the earlier one)."""
        self.epoch, self.batch = self.epoch + 1, 0
        is_best = self.best_score is None or score > self.best_score
        if is_best:
            self.best_score, self.best_epoch = score, self.epoch
        return is_best

    def as_dict(self):
        """What all ranks know alike."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "window"}

    def restore(self, values):
        """Take over what as_dict gave."""
        for name, value in values.items():
            setattr(self, name, value)
