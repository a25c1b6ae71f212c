"""Policy losses, advantages and values: numbers of MiniOneRec's own code, and formulas by hand."""

import json
import math

import pytest
import torch
from conftest import ROOT

from pixelrec_train.losses.policy import (
    divergence,
    generalised_advantages,
    group_advantages,
    policy_loss,
    value_loss,
)

THEIRS = json.loads((ROOT / "tests/fixtures/minionerec/expected_policy_loss.json").read_text())


@pytest.mark.parametrize("case", THEIRS["cases"], ids=lambda case: f"{case['mode']}-{case['beta']}")
def test_losses_and_gradients_are_those_of_minionerec(case):
    lengths = torch.tensor(THEIRS["lengths"])
    real = torch.arange(5) < lengths[:, None]
    new = torch.tensor(THEIRS["log_probabilities"], dtype=torch.float64, requires_grad=True)
    reference, advantages = (
        torch.tensor(THEIRS[name], dtype=torch.float64) for name in ("reference", "advantages")
    )
    of = real.nonzero()[:, 0]
    found = policy_loss(
        new[real], advantages[of], of, 8, None, reference[real], case["mode"], case["beta"], longest=5
    )
    loss = found.total / found.weight
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    torch.testing.assert_close(new.grad, torch.tensor(case["gradient"]).double(), atol=1e-6, rtol=0)
    kl = torch.zeros(8, dtype=torch.float64).index_add(0, of, found.kl) / lengths
    assert kl.mean().item() == pytest.approx(case["kl"], abs=1e-6) and not found.clipped.any()


def one(kind, new, old, gain, low=0.2, high=0.28):
    """Loss and gradient of one rollout of two tokens."""
    new = torch.tensor(new, dtype=torch.float64, requires_grad=True)
    found = policy_loss(
        new, torch.full((2,), gain), torch.zeros(2, dtype=torch.long), 1, torch.tensor(old).double(), None,
        kind, epsilon=(low, high), longest=4,
    )  # fmt: skip
    (found.total / found.weight).backward()
    return (found.total / found.weight).item(), new.grad.tolist(), found.clipped.tolist()


def test_the_ratio_is_clipped_on_the_side_where_it_would_go_on_growing():
    ratios = math.exp(0.5), math.exp(-0.5)  # 1.65 and 0.61
    loss, gradient, clipped = one("grpo", [-1.0, -2.0], [-1.5, -1.5], 2.0)
    assert loss == pytest.approx(-(1.28 * 2 + ratios[1] * 2) / 2) and clipped == [True, False]
    assert gradient == pytest.approx([0.0, -ratios[1]])
    loss, gradient, clipped = one("grpo", [-1.0, -2.0], [-1.5, -1.5], -2.0)
    assert loss == pytest.approx((ratios[0] * 2 + 0.8 * 2) / 2) and clipped == [False, True]
    assert gradient == pytest.approx([ratios[0], 0.0])


def test_what_a_mean_is_over():
    new, old = [-1.0, -1.2], [-1.1, -1.1]
    each = [math.exp(0.1), math.exp(-0.1)]
    assert one("dapo", new, old, 1.0)[0] == pytest.approx(-sum(each) / 2)
    assert one("dr_grpo", new, old, 1.0)[0] == pytest.approx(-sum(each) / 4)
    assert one("gspo", new, old, 1.0)[:2] == (pytest.approx(-1.0), pytest.approx([-0.5, -0.5]))
    # Two rollouts of 1 and 3 tokens: half each by grpo, a quarter a token by dapo.
    of, gain = torch.tensor([0, 1, 1, 1]), torch.tensor([4.0, 1.0, 1.0, 1.0])
    for kind, expected in (("grpo", -2.5), ("dapo", -1.75), ("gspo", -2.5), ("dr_grpo", -7 / 3 / 2)):
        found = policy_loss(torch.zeros(4), gain, of, 2, kind=kind, longest=3)
        assert float(found.total / found.weight) == pytest.approx(expected), kind


def test_a_rank_without_a_rollout_has_a_loss_of_zero_that_has_a_gradient():
    new = torch.zeros(0, requires_grad=True)
    found = policy_loss(new, torch.zeros(0), torch.zeros(0, dtype=torch.long), 0)
    found.total.backward()
    assert found.total == 0 and found.weight == 0


def test_divergence_is_never_negative_and_unbiased():
    torch.manual_seed(0)
    policy, reference = (torch.randn(50).double().log_softmax(0) for _ in range(2))
    each = divergence(policy, reference)
    exact = (policy.exp() * (policy - reference)).sum()
    assert (each >= 0).all() and float((policy.exp() * each).sum()) == pytest.approx(float(exact))


def test_advantages_are_those_of_minionerec_and_without_the_deviation():
    theirs = json.loads((ROOT / "tests/fixtures/minionerec/expected_rewards.json").read_text())
    rewards = torch.tensor(theirs["ranking = rule + ndcg"]).view(-1, 4)
    expected = torch.tensor(theirs["advantages"]).view(-1, 4)
    torch.testing.assert_close(group_advantages(rewards), expected, atol=1e-6, rtol=1e-6)
    assert not group_advantages(torch.ones(2, 4)).any()
    torch.testing.assert_close(
        group_advantages(rewards, scaled=False), rewards - rewards.mean(1, keepdim=True)
    )


def test_generalised_advantages_by_hand():
    values = torch.tensor([[0.5, 0.2, -0.1], [0.3, 9.0, 9.0]])
    rewards = torch.tensor([[0.0, 0.0, 1.0], [1.0, 9.0, 9.0]])
    real = torch.tensor([[True, True, True], [True, False, False]])
    found, returns = generalised_advantages(rewards, values, real, gamma=0.9, decay=0.5)
    third = 1.0 + 0.1
    second = 0.9 * -0.1 - 0.2 + 0.45 * third
    first = 0.9 * 0.2 - 0.5 + 0.45 * second
    torch.testing.assert_close(found, torch.tensor([[first, second, third], [0.7, 0, 0]]))
    torch.testing.assert_close(returns, torch.where(real, found + values, 0.0))
    # decay 1 and gamma 1: what came minus what was expected.
    found, returns = generalised_advantages(rewards, values, real, 1.0, 1.0)
    torch.testing.assert_close(found[0], 1 - values[0])
    assert returns[0].tolist() == pytest.approx([1, 1, 1])


def test_values_are_moved_no_further_than_epsilon_pays():
    new, old, returns = torch.tensor([0.5, 0.05, 2.0]), torch.zeros(3), torch.ones(3)
    cut = [0.2, 0.05, 0.2]
    expected = [0.5 * max((n - 1) ** 2, (c - 1) ** 2) for n, c in zip(new.tolist(), cut, strict=True)]
    assert value_loss(new, old, returns, 0.2).tolist() == pytest.approx(expected)
