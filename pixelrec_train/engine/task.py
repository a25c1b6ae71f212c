"""What an objective is to the loop: model + loss, and the names of its figures."""

from typing import NamedTuple

from torch import nn

from pixelrec_train.errors import InputError

RANKED = ("recall@", "ndcg@", "mrr@")  # figures of a ranking, at any cut-off


class Objective(NamedTuple):
    """How a task names what it measures; nobody else knows these names."""

    shown: dict[str, str]  # metrics of training in the log line, in this order: their format
    judged: tuple[str, ...]  # figures of validation in the log line
    panels: dict[str, tuple[str, ...]]  # of curves.png: title -> what is drawn, where the run has it
    best_by: str  # figure of validation that makes a checkpoint best_model
    others: tuple[str, ...] = ()  # what --best_by may be besides; of RANKED at any cut-off
    falling: tuple[str, ...] = ("valid_loss",)  # figures of which less is better

    def chosen_by(self, best_by):
        """The figure to judge by: --best_by, or the task's own.

        Raises:
            InputError: it is no figure of this task.
        """
        best_by = best_by or self.best_by
        names, (name, _, k) = (self.best_by, *self.others), best_by.partition("@")
        if not (best_by in names and not best_by.endswith("@") or k.isdigit() and f"{name}@" in names):
            raise InputError(f"--best_by {best_by} is no figure of this task. There are: {', '.join(names)}.")
        return best_by


class Task(nn.Module):
    """task(batch) -> (loss, metrics). The loop knows nothing else.

    loss: a scalar with a gradient. metrics: {name: scalar tensor or number}, or {name: (sum, count)} of this
    rank, which the log divides after adding up all of them. Neither waits for the device.
    """

    objective: Objective

    def watch(self, report):
        """Raises TrainingStopped where a log line's figures say that going on is useless."""

    def weight(self, batch):
        """What this rank's part of a micro-batch counts beside others of the same step, a number: its labels,
        where loss is a mean over them; None = all count alike. It must not wait for the device."""
        return None

    def flops(self, batch):
        """Floating-point operations of a training step on this rank's batch, forward and backward; None = not
        counted. It must not wait for the device."""
        return None

    def profiled(self):
        """{name: module} of the parts that a profile shows by name."""
        return {}

    def export(self, directory, tensors):
        """Write a model that others load. tensors: the complete state dict of this task, on the CPU."""
        raise NotImplementedError

    def restore(self, directory):
        """Take back what `export` has written and no optimizer state holds; all ranks call it."""
