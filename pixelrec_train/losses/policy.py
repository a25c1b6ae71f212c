"""How much likelier an answer that a policy gave should become: losses of policy gradients.

Shapes: B prompts, G rollouts of each, R rollouts, N tokens of all of them, L tokens of the longest.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pixelrec_train.config.policy import DAPO, DR_GRPO, GRPO, GSPO

ROUNDING = 1e-4  # added to the deviation of a group's rewards, as in TRL and MiniOneRec


class Losses(NamedTuple):
    total: Tensor  # with gradient; divided by the weights of all ranks it is the mean that `kind` names
    weight: float  # rollouts, or tokens
    kl: Tensor  # [N] k3 estimates of the divergence from the reference; 0 where there is none
    clipped: Tensor  # [N] bool: the ratio is beyond its bound on the side where it would go on growing


def group_advantages(rewards: Tensor, scaled: bool = True) -> Tensor:
    """[B, G] rewards -> [B, G]: how much better each is than its group; 0 where all of it are equal.

    scaled: divided by the group's standard deviation (with G - 1); without, hard and easy prompts count by
        what there is to win (Dr. GRPO, arXiv:2503.20783).

    Source: Shao et al. (arXiv:2402.03300), section 4.1.2.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + ROUNDING) if scaled else centred


def policy_loss(
    new: Tensor,
    advantage: Tensor,
    of: Tensor,
    rollouts: int,
    old: Tensor | None = None,
    reference: Tensor | None = None,
    kind: str = GRPO,
    beta: float = 0.0,
    epsilon: tuple[float, float] = (0.2, 0.2),
    longest: int = 1,
) -> Losses:
    """The clipped objective with a minus in front, and beta times the divergence from a reference.

    grpo: mean over rollouts of their tokens' mean (arXiv:2402.03300).
    dapo: mean over tokens (arXiv:2503.14476).
    gspo: as grpo, but one ratio for all tokens of a rollout, their geometric mean (arXiv:2507.18071).
    dr_grpo: sum over tokens by `longest`, mean over rollouts: no length is favoured (arXiv:2503.20783).

    Args:
        new: [N] log-probabilities of the tokens in nats, with gradient.
        advantage: [N] of the tokens; in GRPO that of their rollout.
        of: [N] which rollout a token is of.
        rollouts: R.
        old: [N] when they were drawn; None = now: the ratio is 1, and nothing is clipped.
        reference: [N] by the reference.
        epsilon: how far below and above 1 the ratio counts.
        longest: tokens of the longest rollout there can be, for dr_grpo.
    """
    length = new.new_zeros(rollouts).index_add(0, of, torch.ones_like(new)).clamp(min=1)
    change = new - (new.detach() if old is None else old)
    if kind == GSPO:
        change = (new.new_zeros(rollouts).index_add(0, of, change) / length)[of]
    ratio, low, high = change.exp(), 1 - epsilon[0], 1 + epsilon[1]
    objective = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    clipped = (ratio < low) & (advantage < 0) | (ratio > high) & (advantage > 0)
    kl = torch.zeros_like(new) if reference is None else divergence(new, reference)
    each = beta * kl - objective
    if kind in (GRPO, GSPO):
        each = each / length[of]
    elif kind == DR_GRPO:
        each = each / longest
    weight = len(of) if kind == DAPO else rollouts
    return Losses(each.sum(), float(weight), kl.detach(), clipped)


def divergence(new: Tensor, reference: Tensor) -> Tensor:
    """[N] estimates of KL(policy || reference) from the policy's own tokens: never negative, and unbiased.

    Source: Schulman, "Approximating KL divergence" (joschu.net, 2020), k3.
    """
    change = reference - new
    return change.exp() - change - 1


def generalised_advantages(
    rewards: Tensor, values: Tensor, real: Tensor, gamma: float = 1.0, decay: float = 0.95
) -> tuple[Tensor, Tensor]:
    """(advantages, returns), [R, L] each: how much better each token turned out than the value before it.

    Args:
        rewards, values: [R, L] of what each token brought, and of what was expected before it.
        real: [R, L] bool, False behind a rollout's end, where nothing more comes: 0 in both results.
        gamma: what a reward counts one token earlier.
        decay: how far differences between expectations reach back; 1 = to the beginning.

    Source: Schulman et al. (arXiv:1506.02438), eq. 16.
    """
    advantages, behind, value_behind = torch.zeros_like(values), 0.0, 0.0
    for place in reversed(range(values.shape[1])):
        there = real[:, place]
        surprise = rewards[:, place] + gamma * value_behind - values[:, place]
        behind = torch.where(there, surprise + gamma * decay * behind, 0.0)
        value_behind = torch.where(there, values[:, place], 0.0)
        advantages[:, place] = behind
    return advantages, torch.where(real, advantages + values, 0.0)


def value_loss(new: Tensor, old: Tensor, returns: Tensor, epsilon: float) -> Tensor:
    """[N] half the squared errors of values, the larger of the new value's and of the new one's cut to within
    epsilon of the old.

    Source: OpenAI baselines, ppo2 (not in the paper, arXiv:1707.06347); so TRL and verl have it.
    """
    cut = torch.clamp(new, old - epsilon, old + epsilon)
    return 0.5 * torch.maximum((new - returns) ** 2, (cut - returns) ** 2)
