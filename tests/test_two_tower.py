"""The task as a whole, on one rank and without an engine."""

import numpy as np
import pytest
import torch
from conftest import inputs_of

from pixelrec_train.data.windows import TwoTowerCollator
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.tasks.two_tower import TwoTowerTask


@pytest.fixture
def case(demo_config):
    """A task, its collator, and eight windows of the demo with negatives for them."""
    torch.manual_seed(0)
    inputs = inputs_of(demo_config)
    windows = [np.asarray(inputs.interactions.items[a:b]) for a, b in inputs.split.windows[:8]]
    negatives = np.random.default_rng(0).choice(np.setdiff1d(np.arange(700), np.concatenate(windows)), 48)
    task = TwoTowerTask(HLLMModel.starting(demo_config), demo_config, demo_config.item_dir)
    return task, TwoTowerCollator(inputs.item_text, None, demo_config.max_seq_length), windows, negatives


def test_one_batch_is_learned_by_heart(case):
    task, collator, windows, negatives = case
    batch = collator.collate(windows, negatives)
    optimizer = torch.optim.AdamW(task.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss, metrics = task(batch)
        loss.backward()
        optimizer.step()
    assert metrics["nce_top1_acc"] >= 0.95 and loss < 0.2


def test_windows_that_are_nowhere_valid_change_nothing(case):
    task, collator, windows, negatives = case
    with torch.no_grad():
        expected, _ = task(collator.collate(windows, negatives))
        padded, metrics = task(collator.collate([*windows, windows[0][:0], windows[0][:0]], negatives))
    assert padded.item() == pytest.approx(expected.item(), rel=1e-6)
    assert metrics["nce_samples"] <= len(negatives) + 1


def test_a_batch_without_any_window_gives_zero_loss_and_zero_gradients(case):
    task, collator, windows, negatives = case
    loss, _ = task(collator.collate([windows[0][:0]] * 4, negatives))
    loss.backward()
    assert loss.item() == 0
    assert all(
        p.grad is None or (torch.isfinite(p.grad).all() and not p.grad.any()) for p in task.parameters()
    )


def test_every_trained_weight_gets_a_gradient(case):
    task, collator, windows, negatives = case
    task(collator.collate(windows, negatives))[0].backward()
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


def test_each_distinct_item_is_encoded_once_in_one_call(case):
    task, collator, windows, negatives = case
    batch, calls = collator.collate(windows + windows, negatives), []
    task.model.item_llm.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    task(batch)
    assert calls == [len(np.unique(np.concatenate([*windows, negatives])))]


def test_target_and_later_items_do_not_reach_an_earlier_position(case):
    """Change the last item of a window: no earlier user embedding may move."""
    task, collator, windows, negatives = case
    task.eval()
    window = windows[int(np.argmax([len(w) for w in windows]))]
    changed = np.append(window[:-1], negatives[0])
    with torch.no_grad():
        before = task.model(collator.collate([window], negatives))[0][0]
        after = task.model(collator.collate([changed], negatives))[0][0]
    assert torch.allclose(before[: len(window) - 1], after[: len(window) - 1], atol=1e-6)
