"""NCE against a slow twin written from the paper, and its behaviour where training code usually breaks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.losses.nce import hold, mean_cosine, nce_loss


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def slow_nce(user, positive, negatives, valid, logit_scale, threshold):
    """One position after the other, in plain Python."""
    losses, kept, ranks = [], [], []
    scale = math.exp(min(max(float(logit_scale), 0.0), math.log(100)))
    for b in range(user.shape[0]):
        for s in range(user.shape[1]):
            if not valid[b, s]:
                continue
            p = positive[b, s]
            right = scale * cosine(user[b, s], p)
            wrong = [scale * cosine(user[b, s], n) for n in negatives if cosine(p, n) <= threshold]
            losses.append(math.log(sum(math.exp(x - right) for x in [right, *wrong])))
            kept.append(1 + len(wrong))
            ranks.append(sum(x >= right for x in wrong))
    n = len(losses)
    return sum(losses) / n, sum(kept) / n, {k: sum(r < k for r in ranks) / n for k in (1, 5, 10)}


@pytest.fixture
def case():
    torch.manual_seed(0)
    user, positive = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    negatives = torch.randn(20, 8)
    negatives[7] = 3 * positive[1, 2]  # the target itself, under another id and at another length
    negatives[8] = 2 * user[0, 0] + 0.1 * negatives[8]  # a hard negative: it must stay
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    return user, positive, negatives, valid


def test_loss_and_metrics_are_those_of_the_slow_way(case):
    for scale in (2.6593, 9.0, -3.0):  # in range, above ln 100, below 0
        loss, metrics = nce_loss(*case, torch.tensor([scale]), same_item_cosine=0.99)
        expected, kept, accuracy = slow_nce(*case, scale, 0.99)
        assert loss.item() == pytest.approx(expected, rel=1e-6)
        assert metrics["nce_samples"].item() == pytest.approx(kept)
        assert all(metrics[f"nce_top{k}_acc"].item() == pytest.approx(v) for k, v in accuracy.items())


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(2, 5)), st.data(),
    st.floats(-1, 1), st.floats(-1, 5), st.none() | st.integers(1, 15), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_loss_and_metrics_of_any_size_are_those_of_the_slow_way(size, data, threshold, scale, chunk, seed):
    users, steps, pool, width = size
    generator = torch.Generator().manual_seed(seed)
    user, positive = (torch.randn(users, steps, width, generator=generator) for _ in range(2))
    negatives = torch.randn(pool, width, generator=generator)
    valid = torch.rand(users, steps, generator=generator) < 0.6
    valid[data.draw(st.integers(0, users - 1)), 0] = True
    case = user, positive, negatives, valid
    loss, metrics = nce_loss(*case, torch.tensor([scale]), same_item_cosine=threshold, chunk=chunk)
    expected, kept, accuracy = slow_nce(*case, scale, threshold)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert metrics["nce_samples"].item() == pytest.approx(kept)
    told = {k: v for k, v in accuracy.items() if k <= pool + 1}  # the others say nothing
    assert told.keys() == {k for k in accuracy if f"nce_top{k}_acc" in metrics}
    assert all(metrics[f"nce_top{k}_acc"].item() == pytest.approx(v) for k, v in told.items())


@pytest.mark.parametrize("chunk", [1, 7, 20, 100])
def test_scoring_the_pool_in_chunks_changes_neither_loss_nor_metrics_nor_gradients(case, chunk):
    def run(chunk):
        user, positive, negatives, valid = (x.clone().requires_grad_(x.is_floating_point()) for x in case)
        scale = torch.tensor([2.0], requires_grad=True)
        loss, metrics = nce_loss(user, positive, negatives, valid, scale, same_item_cosine=0.99, chunk=chunk)
        loss.backward()
        return [loss, *metrics.values(), user.grad, positive.grad, negatives.grad, scale.grad]

    for ours, theirs in zip(run(chunk), run(None), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_chunk_in_which_every_negative_is_the_target_adds_nothing(case):
    user, positive, negatives, valid = case
    same = positive[0, 0].expand(5, -1)
    valid = torch.zeros_like(valid)
    valid[0, 0] = True
    pool = torch.cat([same, negatives]).requires_grad_()
    loss, metrics = nce_loss(user, positive, pool, valid, torch.ones(1), same_item_cosine=0.99, chunk=5)
    expected, _ = nce_loss(user, positive, negatives, valid, torch.ones(1), same_item_cosine=0.99)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item()) and metrics["nce_samples"] == 21
    assert torch.isfinite(pool.grad).all() and not pool.grad[:5].any()


def test_only_the_planted_duplicate_leaves_the_pool_and_only_for_its_position(case):
    _, metrics = nce_loss(*case, torch.zeros(1), same_item_cosine=0.99)
    assert metrics["nce_samples"].item() == pytest.approx(21 - 1 / 7)


def test_every_gradient_is_finite_and_padding_gets_none(case):
    user, positive, negatives, valid = (x.clone().requires_grad_(x.is_floating_point()) for x in case)
    scale = torch.tensor([2.0], requires_grad=True)
    loss, _ = nce_loss(user, positive, negatives, valid, scale, same_item_cosine=0.99)
    loss.backward()
    assert all(torch.isfinite(x.grad).all() for x in (user, positive, negatives, scale))
    assert scale.grad.abs() > 0
    assert (user.grad[~valid] == 0).all() and (positive.grad[~valid] == 0).all()


def test_nothing_valid_is_a_loss_of_zero_with_zero_gradient(case):
    user, positive, negatives, valid = case
    user.requires_grad_()
    loss, metrics = nce_loss(user, positive, negatives, valid & False, torch.zeros(1), same_item_cosine=0.99)
    loss.backward()
    assert loss.item() == 0 and (user.grad == 0).all()
    assert all(math.isfinite(v) for v in metrics.values())


def test_one_valid_position_works(case):
    user, positive, negatives, valid = case
    valid = valid & False
    valid[1, 2] = True
    loss, _ = nce_loss(user, positive, negatives, valid, torch.ones(1), same_item_cosine=0.99)
    assert loss.item() == pytest.approx(slow_nce(user, positive, negatives, valid, 1.0, 0.99)[0], rel=1e-6)


def test_a_fully_filtered_pool_stays_finite_and_shows_in_nce_samples():
    same = torch.ones(2, 3, 4, requires_grad=True)
    valid = torch.ones(2, 3, dtype=torch.bool)
    loss, metrics = nce_loss(same, same, torch.ones(5, 4), valid, torch.ones(1), same_item_cosine=0.99)
    loss.backward()
    assert loss.item() == 0 and metrics["nce_samples"].item() == 1
    assert torch.isfinite(same.grad).all()
    assert metrics["item_cosine"].item() == pytest.approx(1, abs=1e-5)


def test_sums_divided_by_a_shared_count_make_positions_weigh_the_same(case):
    user, positive, negatives, valid = case
    whole, _ = nce_loss(*case, torch.ones(1), same_item_cosine=0.99)
    count = torch.tensor(7 / 2)  # 4 + 3 valid positions on two ranks
    halves = [
        nce_loss(user[r : r + 1], positive[r : r + 1], negatives, valid[r : r + 1], torch.ones(1),
                 same_item_cosine=0.99, count=count)[0]
        for r in (0, 1)
    ]  # fmt: skip
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), rel=1e-6)


def test_accuracy_is_left_out_where_the_pool_is_too_small(case):
    user, positive, negatives, valid = case
    _, metrics = nce_loss(user, positive, negatives[:6], valid, torch.ones(1), same_item_cosine=0.99)
    assert {k for k in metrics if k.endswith("acc")} == {"nce_top1_acc", "nce_top5_acc"}


def test_half_precision_embeddings_are_compared_in_fp32(case):
    user, positive, negatives, valid = (x.bfloat16() if x.is_floating_point() else x for x in case)
    loss, _ = nce_loss(user, positive, negatives, valid, torch.ones(1).bfloat16(), same_item_cosine=0.99)
    assert loss.dtype == torch.float32
    expected = slow_nce(user.float(), positive.float(), negatives.float(), valid, 1.0, 0.99)[0]
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_shapes_that_disagree_are_refused(case):
    user, positive, negatives, valid = case
    with pytest.raises(ValueError, match="must agree"):
        nce_loss(user, positive[:, :2], negatives, valid, torch.ones(1), same_item_cosine=0.99)


@pytest.mark.parametrize(
    "x, gradient, passes",
    [(5.0, 1, True), (5.0, -1, False), (-1.0, 1, False), (-1.0, -1, True), (2.0, 1, True)],
)
def test_a_held_scale_can_come_back_but_not_run_away(x, gradient, passes):
    """Descent moves against the gradient: at the upper end a positive one leads back."""
    value = torch.tensor([x], requires_grad=True)
    held = hold(value, 0.0, 4.0)
    held.backward(torch.tensor([float(gradient)]))
    assert held.item() == min(max(x, 0.0), 4.0)
    assert (value.grad.item() != 0) == passes


def test_mean_cosine_is_that_over_all_pairs():
    rows = torch.nn.functional.normalize(torch.randn(7, 5), dim=1)
    pairs = [float(rows[i] @ rows[j]) for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(rows).item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
