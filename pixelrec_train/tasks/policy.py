"""Learning from rewards: rollouts become likelier, or less likely, by what they are worth (GRPO)."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pixelrec_train import distributed
from pixelrec_train.config.policy import DAPO
from pixelrec_train.engine.task import Objective
from pixelrec_train.engine.weights import overwrite, whole
from pixelrec_train.losses.policy import group_advantages, policy_loss
from pixelrec_train.tasks.tokens import OTHERS, TokenTask

REFERENCE = "reference.safetensors"
OLD, OF_REFERENCE = "old", "reference"


def text_objective(rewards, more=()):
    """Of answers that are texts: judged by what they are worth."""
    shown = ("reward", "kl", "entropy", "no_signal", "answer_tokens", *more)
    return Objective(
        shown=dict.fromkeys(shown, ".4g"),
        judged=("valid_reward", "valid_answer_tokens"),
        panels={
            "reward": ("reward", "valid_reward", *(f"reward/{name}" for name in rewards)),
            "entropy (nats)": ("entropy",),
            "divergence (nats)": ("kl",),
            "answers": ("answer_tokens", "valid_answer_tokens"),
        },
        best_by="valid_reward",
    )


def objective_of(rewards, more=()):
    """Of answers that are items. rewards: names of the rewards; more: metrics of the task besides."""
    shown = {
        "reward": ".4f",
        "hits": ".3f",
        "kl": ".5f",
        "entropy": ".3f",
        "no_signal": ".3f",
        "distinct": ".0f",
    }
    return Objective(
        shown=shown | dict.fromkeys(more, ".4f"),
        judged=("recall@10", "ndcg@10"),
        panels={
            "reward": ("reward", *(f"reward/{name}" for name in rewards)),
            "groups": ("hits", "no_signal"),
            "entropy (nats)": ("entropy",),
            "divergence (nats)": ("kl",),
            "validation": ("recall@10", "ndcg@10"),
        },
        best_by="ndcg@10",
        others=OTHERS,
    )


class PolicyTask(TokenTask):
    """model + loss, as the loop wants them; reads a RolloutBatch. What it says of groups and batches is asked
    by rl.source."""

    more = ()  # metrics besides those of objective_of

    def __init__(
        self, model, model_dir, flags, reference=None, semantic_ids=None, objective=None, longest=None,
        beside=None,
    ):  # fmt: skip
        """
        Args:
            flags: GrpoConfig, PpoConfig or TextPolicyConfig.
            reference: a TokenModel as the policy was before training, which is not trained; None = without.
            objective: where answers are no items.
            longest: tokens of an answer, at most; None = those of an id.
            Others: as of TokenTask.
        """
        objective = objective or objective_of(flags.reward_funcs, self.more)
        super().__init__(model, model_dir, semantic_ids, objective, beside=beside)
        self.flags, self.reference, self.synced = flags, reference, 0  # at which step
        self.longest = longest or self.levels
        if reference is not None:
            reference.requires_grad_(False)

    def credit(self, rewards):
        """[B, G] rewards -> ([B, G] advantages, [B] bool: whether there is something to learn)."""
        return group_advantages(rewards, self.flags.scale_rewards), (rewards != rewards[:, :1]).any(1)

    def begin_round(self, step):
        """Before rollouts are made: the reference moves towards the policy where it is time; all ranks."""
        every, share = self.flags.ref_model_sync_steps, self.flags.ref_model_mixup_alpha
        if self.reference is None or not every or step - self.synced < every:
            return
        self.synced, own = step, dict(self.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self.reference.named_parameters():
                with whole([parameter, own[name]]):
                    value = torch.lerp(parameter.float(), own[name].float(), share)
                overwrite([(name, parameter)], lambda _, value=value: value)

    def look(self, batch):
        """{name: [N]} of what models say of the labels before anything is learned from them."""
        found = self.said(batch, self.before_labels(batch)) if self.looks_first else {}
        if self.reference is not None:
            found[OF_REFERENCE] = -self.reference.token_losses(batch.tokens)[0]
        return found

    def said(self, batch, hidden):
        """What the policy itself says, of [N, D] final states before the labels; see look."""
        return {OLD: -self.model.losses_at(hidden, batch.tokens.labels)[0]}

    @property
    def looks_first(self):
        """Whether learning asks what the policy said when a rollout was made."""
        return self.learns_again

    @property
    def learns_again(self):
        """Whether the policy moves between a rollout and its use."""
        flags = self.flags
        return flags.num_iterations > 1 or flags.steps_per_generation > flags.gradient_accumulation_steps

    def settle(self, batch, looked):
        """The batch with what `look` has found."""
        return replace(batch, known=looked)

    def losses(self, batch, hidden):
        """(losses.policy.Losses, {metric: (sum, count)}) of [N, D] final states before the labels."""
        entropies = torch.zeros(len(batch.of), device=hidden.device)
        losses, _ = self.model.losses_at(hidden, batch.tokens.labels, entropies)
        flags, known = self.flags, batch.known
        found = policy_loss(
            -losses, self.advantages(batch), batch.of, batch.rollouts,
            known.get(OLD), known.get(OF_REFERENCE), self.loss_type, flags.beta, flags.bounds, self.longest,
        )  # fmt: skip
        count = torch.full((), float(len(losses)), device=losses.device)
        metrics = {"entropy": (entropies.sum(), count)}
        if self.reference is not None:
            metrics["kl"] = (found.kl.sum(), count)
        if self.learns_again:
            metrics["clipped"] = (found.clipped.float().sum(), count)
        return found, batch.figures | metrics

    @property
    def loss_type(self):
        return self.flags.loss_type

    def advantages(self, batch):
        """[N] of the labels."""
        return batch.credit[batch.of]

    def forward(self, batch):
        """Mean over all rollouts (or tokens) of all ranks, see policy_loss."""
        weight = torch.full((), self.weight(batch), device=batch.of.device)
        mean = distributed.coming_mean(weight)
        found, metrics = self.losses(batch, self.before_labels(batch))
        return distributed.over_all(found.total, mean), metrics

    def before_labels(self, batch):
        """[N, D] final states."""
        return torch.nn.functional.embedding(batch.tokens.positions, self.model.read(batch.tokens.texts))

    def weight(self, batch):
        return float(len(batch.of) if self.loss_type == DAPO else batch.rollouts)

    def flops(self, batch):
        return super().flops(batch.tokens)

    def export(self, directory, tensors):
        """As of a TokenTask; and the reference, where it moves."""
        super().export(directory, {n: x for n, x in tensors.items() if not n.startswith("reference.")})
        if self.flags.ref_model_sync_steps:
            moved = {
                n.removeprefix("reference."): x for n, x in tensors.items() if n.startswith("reference.")
            }
            save_file(moved, Path(directory) / REFERENCE, {"step": str(self.synced)})

    def restore(self, directory):
        if self.reference is not None and self.flags.ref_model_sync_steps:
            with safe_open(Path(directory) / REFERENCE, "pt") as file:
                self.synced = int(file.metadata()["step"])
                overwrite(self.reference.named_parameters(), file.get_tensor)
