"""Direct preference optimisation: the better answer becomes likelier than the worse, beside a reference."""

import torch

from pixelrec_train import distributed
from pixelrec_train.engine.task import RANKED, Objective
from pixelrec_train.errors import InputError
from pixelrec_train.losses.preference import preference_loss
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.tokens import TokenTask

REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")


class PreferenceTask(TokenTask):
    """model + loss, as the loop wants them."""

    def __init__(self, model, model_dir, preference, beside=None, semantic_ids=None, ranked=False):
        """
        Args:
            preference: PreferenceFlags.
            ranked: whether held-out users are judged too, and by their figures best_model is chosen.
            Others: as of TokenTask.
        """
        objective = Objective(
            shown=dict(zip(REWARDS, (".3f",) * 4, strict=True)),
            judged=("valid_loss", "accuracy", "margin", *("recall@10", "ndcg@10") * ranked),
            panels={
                "loss": ("loss", "valid_loss"),
                "rewards": REWARDS[:3],
                "better found": (REWARDS[3], "accuracy"),
                "validation": ("recall@10", "ndcg@10"),
            },
            best_by="ndcg@10" if ranked else "valid_loss",
            others=("valid_loss", "accuracy", "margin", *RANKED * ranked),
        )
        super().__init__(model, model_dir, semantic_ids, objective, beside=beside)
        self.preference = preference

    def log_probabilities(self, batch):
        """[B, 2] of the better and the worse answer: sums over their words, or means."""
        losses, _ = self.model.token_losses(batch.tokens)
        sums = losses.new_zeros(max(2 * batch.num_pairs, 1)).index_add(0, batch.text, -losses)
        if self.preference.length_normalised:
            count = torch.zeros_like(sums).index_add(0, batch.text, torch.ones_like(losses))
            sums = sums / count.clamp(min=1)
        return sums, sums[: 2 * batch.num_pairs].view(-1, 2)

    def judged(self, batch):
        """(a sum that every rank has a gradient of, [B] losses, [B, 2] rewards: β times the log-ratios)."""
        flags = self.preference
        sums, found = self.log_probabilities(batch)
        ratios = found - (0 if flags.reference_free else batch.reference)
        losses = preference_loss(*ratios.unbind(1), flags.loss_type, flags.beta, flags.label_smoothing)
        return sums, losses, flags.beta * ratios

    def forward(self, batch):
        """Mean over all pairs of all ranks; metrics as TRL names them."""
        pairs = torch.full((), float(batch.num_pairs), device=batch.text.device)
        mean = distributed.coming_mean(pairs)
        sums, losses, rewards = self.judged(batch)
        better, worse = rewards.detach().unbind(1)
        values = (better, worse, better - worse, (better > worse).float())
        metrics = {name: (value.sum(), pairs) for name, value in zip(REWARDS, values, strict=True)}
        return distributed.over_all(losses.sum() + 0 * sums.sum(), mean), metrics

    def weight(self, batch):
        return float(batch.num_pairs)

    def flops(self, batch):
        return super().flops(batch.tokens)

    @torch.no_grad()
    def judge(self, batches):
        """{"valid_loss", "accuracy": share of pairs whose better answer has the higher reward, "margin": mean
        difference of rewards}. Raises InputError where there is no pair."""
        sums = torch.zeros(4, dtype=torch.float64, device=distributed.device())
        for batch in batches:
            _, losses, rewards = self.judged(batch.to(distributed.device()))
            better, worse = rewards.double().unbind(1)
            right = (better > worse).double().sum()
            sums += torch.stack(
                [losses.double().sum(), right, (better - worse).sum(), sums.new_tensor(len(losses))]
            )
        loss, right, margin, count = distributed.mean_tensor(sums).tolist()
        if not count:
            raise InputError("--eval_file holds no pair.")
        return {"valid_loss": loss / count, "accuracy": right / count, "margin": margin / count}

    @torch.no_grad()
    def reference(self, batches, total):
        """[total, 2] log-probabilities by the model as it is now. All ranks call it, each with its own
        PairBatches, in which together every pair is once."""
        found = torch.zeros(total, 2, dtype=torch.float64, device=distributed.device())
        for batch in batches:
            watchdog.at("log-probabilities of the reference")
            batch = batch.to(distributed.device())
            found[batch.numbers] = self.log_probabilities(batch)[1].double()
        return (distributed.mean_tensor(found) * distributed.world_size()).cpu().numpy()
