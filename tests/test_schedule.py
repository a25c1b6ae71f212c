"""The learning rate at every step: that of transformers, and that of OpenOneRec where it ends above zero."""

import dataclasses
import itertools
import json

import pytest
import torch
from conftest import ROOT
from transformers import get_scheduler

from pixelrec_train.config import OptimisationFlags
from pixelrec_train.engine.checkpoint import set_step
from pixelrec_train.engine.optim import build_optimizer
from pixelrec_train.errors import InputError

# What OpenOneRec's own schedule gives, step by step (commit 1f4a99e).
THEIRS = json.loads((ROOT / "tests/fixtures/openonerec/expected_learning_rate.json").read_text())


def rates(flags, total_steps, count):
    """Learning rates of `count` steps of a run of total_steps, at all of its parameters."""
    optimizer, schedule = build_optimizer(torch.nn.Linear(2, 2), flags, total_steps)
    found = []
    for _ in range(count):
        weights, biases = (group["lr"] for group in optimizer.param_groups)
        assert weights == biases == schedule.get_last_lr()[0]
        found.append(weights)
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("theirs", THEIRS, ids=lambda v: f"warm-up {v['num_warmup_steps']}")
@pytest.mark.parametrize("name", ["cosine", "cosine_with_min_lr"])
def test_the_rate_is_openonerecs_at_every_step_also_behind_the_end_of_the_decay(theirs, name):
    flags = OptimisationFlags(
        learning_rate=theirs["learning_rate"], min_lr=theirs["min_lr"], lr_scheduler_type=name,
        warmup_steps=theirs["num_warmup_steps"], decay_steps=theirs["num_training_steps"],
    )  # fmt: skip
    steps = len(theirs["lr_at_step"])
    assert rates(flags, 10 * steps, steps) == pytest.approx(theirs["lr_at_step"], rel=0, abs=1e-12)


WARM_UPS = [{"warmup_ratio": 0.1}, {"warmup_ratio": 0.0}, {"warmup_steps": 7}, {"warmup_steps": 60}]


@pytest.mark.parametrize(
    "name, warmup",
    itertools.product(["cosine", "linear", "constant_with_warmup"], WARM_UPS),
    ids=lambda x: x if isinstance(x, str) else "-".join(f"{k}-{v}" for k, v in x.items()),
)
@pytest.mark.parametrize("total", [10, 53, 60])
def test_with_the_defaults_the_rate_is_transformers_to_the_bit(name, warmup, total):
    flags = OptimisationFlags(learning_rate=3e-4, lr_scheduler_type=name, **warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    theirs = get_scheduler(name, optimizer, warmup.get("warmup_steps", flags.warmup_ratio * total), total)
    expected = []
    for _ in range(total + 1):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rates(flags, total, total + 1) == expected


def test_a_line_ends_at_min_lr_too_and_a_share_of_warming_up_is_one_of_the_decay():
    flags = OptimisationFlags(
        learning_rate=1.0, min_lr=0.2, lr_scheduler_type="linear", decay_steps=10, warmup_ratio=0.2
    )
    found = rates(flags, 1000, 13)
    assert found == pytest.approx([0, 0.5, *(1 - n / 10 for n in range(9)), 0.2, 0.2])


def test_a_resumed_schedule_stands_where_it_stood():
    flags = OptimisationFlags(min_lr=2e-5, decay_steps=9, warmup_steps=3)
    expected = rates(flags, 30, 20)
    for step, rate in enumerate(expected):
        optimizer, schedule = build_optimizer(torch.nn.Linear(2, 2), flags, 30)
        set_step(schedule, step)
        assert optimizer.param_groups[0]["lr"] == rate == schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        assert step + 1 == len(expected) or optimizer.param_groups[0]["lr"] == expected[step + 1]


def test_an_offloaded_optimizer_is_the_same_but_for_rounding():
    torch.manual_seed(0)
    start, gradient, flags = torch.randn(50, 3), torch.randn(50, 3), OptimisationFlags(warmup_steps=0)
    found = []
    for offloaded in (False, True):
        layer = torch.nn.Linear(3, 50, bias=False)
        layer.weight.data = start.clone()
        optimizer, schedule = build_optimizer(layer, flags, 30, offloaded)
        for n in range(10):
            layer.weight.grad = gradient * (n - 4)
            optimizer.step(), schedule.step()
        found.append(layer.weight.detach())
    assert torch.allclose(*found, rtol=1e-5, atol=1e-7) and not torch.equal(found[0], start)


@pytest.mark.parametrize(
    "flags, says",
    [
        ({"min_lr": 2e-4}, "--min_lr 0.0002 is above --learning_rate 0.0001"),
        ({"min_lr": float("nan")}, "--min_lr must be a number that is not negative"),
        (
            {"min_lr": 1e-5, "lr_scheduler_type": "constant_with_warmup"},
            "constant_with_warmup never falls, so --min_lr 1e-05 has nothing to do",
        ),
        (
            {"decay_steps": 5, "lr_scheduler_type": "constant_with_warmup"},
            "never falls, so --decay_steps 5 has nothing to do",
        ),
        ({"warmup_steps": 6, "decay_steps": 5}, "--warmup_steps 6 is above --decay_steps 5"),
        ({"decay_steps": 0}, "--decay_steps must be None or at least 1"),
    ],
    ids=lambda x: x.split()[0] if isinstance(x, str) else "-".join(x),
)
def test_a_schedule_that_contradicts_itself_is_refused(flags, says):
    with pytest.raises(InputError, match=says):
        OptimisationFlags(**flags)


def test_both_names_of_the_cosine_are_the_same_run():
    asked = OptimisationFlags(lr_scheduler_type="cosine_with_min_lr", min_lr=1e-5)
    assert asked == dataclasses.replace(asked, lr_scheduler_type="cosine")
