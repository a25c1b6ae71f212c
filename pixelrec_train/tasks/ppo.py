"""Proximal policy optimisation: a value head says what is expected, what does better grows likelier."""

from dataclasses import replace

import torch
from torch import nn

from pixelrec_train import distributed
from pixelrec_train.config.policy import DAPO
from pixelrec_train.losses.policy import generalised_advantages, value_loss
from pixelrec_train.tasks.policy import PolicyTask

VALUES, RETURNS, ADVANTAGE = "values", "returns", "advantage"


class PpoTask(PolicyTask):
    """A PolicyTask with a value head upon the same trunk. Its policy loss is a mean over tokens."""

    loss_type, more, looks_first = DAPO, ("value_loss",), True

    def __init__(self, model, *args, **kwargs):
        """Arguments: of PolicyTask."""
        super().__init__(model, *args, **kwargs)
        self.value_head = nn.Linear(model.backbone.config.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def credit(self, rewards):
        """The rewards themselves, of every group."""
        return rewards, torch.ones(len(rewards), dtype=torch.bool)

    def values(self, hidden):
        """[N, D] final states before labels -> [N] fp32, what is expected of the rest of a rollout."""
        return self.value_head(hidden)[:, 0].float()

    def said(self, batch, hidden):
        return super().said(batch, hidden) | {VALUES: self.values(hidden)}

    def settle(self, batch, looked):
        """With advantages and returns: a rollout's reward comes with its last token."""
        of, values = batch.of, looked[VALUES]
        length = torch.bincount(of, minlength=batch.rollouts)
        real = torch.arange(self.longest, device=of.device) < length[:, None]  # [R, L]; labels lie row by row
        expected, reward = (torch.zeros(real.shape, device=of.device) for _ in range(2))
        expected[real] = values
        reward[torch.arange(batch.rollouts, device=of.device), length - 1] = batch.credit
        flags = self.flags
        advantage, returns = generalised_advantages(reward, expected, real, flags.gamma, flags.lam)
        advantage = whitened(advantage[real]) if flags.whiten else advantage[real]
        return replace(batch, known=looked | {ADVANTAGE: advantage, RETURNS: returns[real]})

    def advantages(self, batch):
        return batch.known[ADVANTAGE]

    def losses(self, batch, hidden):
        """The policy's losses with --vf_coef of the values', of all tokens as well."""
        found, metrics = super().losses(batch, hidden)
        known, flags = batch.known, self.flags
        missed = value_loss(self.values(hidden), known[VALUES], known[RETURNS], flags.cliprange_value).sum()
        count = torch.full((), float(len(batch.of)), device=missed.device)
        return found._replace(total=found.total + flags.vf_coef * missed), metrics | {
            "value_loss": (missed, count)
        }


def whitened(advantage):
    """[N] of this rank -> with mean 0 and deviation 1 over those of all ranks."""
    sums = torch.stack([torch.ones_like(advantage).sum(), advantage.sum(), (advantage**2).sum()]).double()
    count, total, squares = distributed.mean_tensor(sums).unbind()
    mean = total / count.clamp(min=1e-12)
    variance = squares / count.clamp(min=1e-12) - mean**2
    return ((advantage - mean) * torch.rsqrt(variance.clamp(min=0) + 1e-8)).float()


TASKS = {"grpo": PolicyTask, "ppo": PpoTask}
