"""Where a run stands: everything that moves while training, besides weights and optimizer."""

import dataclasses
from dataclasses import dataclass, field

from pixelrec_train.engine.log_sums import LogSums


def steps_per_epoch(micro_batches, loop):
    """Optimizer steps in that many micro-batches of a rank; the last step may have fewer than the others."""
    return -(-micro_batches // loop.gradient_accumulation_steps)


def total_steps(batches_in, loop):
    """Optimizer steps of a whole run. batches_in: epoch -> its micro-batches of a rank."""
    epochs = range(0 if loop.max_steps else loop.num_train_epochs)
    return loop.max_steps or sum(steps_per_epoch(batches_in(epoch), loop) for epoch in epochs)


@dataclass
class TrainState:
    total_steps: int  # optimizer steps of the whole run
    epoch: int = 0  # finished epochs
    batch: int = 0  # micro-batches done in the current epoch, per rank
    step: int = 0  # optimizer steps done
    best_score: float | None = None  # of the validation figure that chooses best_model
    best_epoch: float | None = None  # where that was: 3 = at the end of the third, 2.5 = in the middle of it
    since_best: int = 0  # evaluations since then
    owes_evaluation: bool = False  # that in the middle of an epoch was broken off here, and comes first
    checkpoints: list[str] = field(default_factory=list)  # names this run wrote and still keeps, oldest first
    sums: LogSums | None = None  # what has been summed up since the last log line, on this rank

    def judge(self, score, position, less_is_better=False):
        """Take note of an evaluation; whether its score is the best so far (a tie keeps the earlier one).

        position: in epochs, as of best_epoch.
        """
        sign = -1 if less_is_better else 1
        is_best = self.best_score is None or sign * score > sign * self.best_score
        if is_best:
            self.best_score, self.best_epoch = score, position
        self.since_best = 0 if is_best else self.since_best + 1
        return is_best

    def as_dict(self):
        """What all ranks know alike."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "sums"}

    def restore(self, values):
        """Take over what as_dict gave."""
        for name, value in values.items():
            setattr(self, name, value)
