"""What DeepSpeed keeps private and this project needs: where ZeRO has put parameters and optimizer state.

The only place with its inner names: they move between versions, and tests/test_launch.py would notice.
(run/rendezvous.py has one of its own: it is needed before there is an engine.)
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F

from pixelrec_train import distributed


class Piece(NamedTuple):
    """Entries first … first + count - 1 of a flattened parameter, at `offset` of a rank's buffer `buffer`."""

    name: str
    first: int
    count: int
    buffer: int
    offset: int


def is_cut(parameter):
    """Whether ZeRO-3 has cut it into shards, so that it shows neither its shape nor its size."""
    return hasattr(parameter, "ds_id")


def shape_of(parameter):
    return parameter.ds_shape if is_cut(parameter) else parameter.shape


def size_of(parameter):
    return parameter.ds_numel if is_cut(parameter) else parameter.numel()


def layout(engine):
    """([fp32 buffers of this rank], [Piece]): where ZeRO keeps what the optimizer updates."""
    optimizer, names = engine.optimizer, {id(p): n for n, p in engine.module.named_parameters()}
    if engine.zero_optimization_stage() == 3:
        buffers, pieces = optimizer.fp32_partitioned_groups_flat, []
        for parameter in (p for group in optimizer.fp16_groups for p in group):
            buffer, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
            size = parameter.partition_numel()
            first = size * distributed.rank()
            count = max(0, min(size, parameter.ds_numel - first))  # the last rank's stretch is filled up
            pieces.append(Piece(names[id(parameter)], first, count, buffer, offset))
        return buffers, pieces
    if hasattr(optimizer, "fp32_groups_flat_partition"):  # stage 1 that adds up bf16 gradients in fp32
        buffers = optimizer.fp32_groups_flat_partition
    else:
        buffers = optimizer.single_partition_of_fp32_groups
    mapped = ((n, p._hp_mapping) for n, p in engine.module.named_parameters() if hasattr(p, "_hp_mapping"))
    return buffers, [
        Piece(n, m.lp_fragment_address.start, m.lp_fragment_address.numel, m.param_group_index,
              m.hp_fragment_address.start)
        for n, m in mapped if m is not None
    ]  # fmt: skip


@contextmanager
def at_hand(engine, number):
    """Context in which buffer `number` and its moments are in memory; gives whether they leave it again."""
    optimizer = engine.optimizer
    on_disk = engine.zero_optimization_stage() == 3 and optimizer._swappable_optimizer_subgroup(number)
    if on_disk:  # NVMe
        optimizer._optimizer_states_and_gradient_swap_in(number)
    yield on_disk
    if on_disk:
        optimizer._optimizer_states_and_gradient_swap_out(number)


def moments(engine, buffer):
    """AdamW's {"step", "exp_avg", "exp_avg_sq"} of one of the layout's buffers."""
    return engine.optimizer.optimizer.state[buffer]


def forget_moments(engine, buffer, step):
    """As if AdamW had made `step` steps and seen no gradient; gives its moments, to be filled."""
    state = moments(engine, buffer)
    state["step"] = torch.tensor(float(step))
    for kind in ("exp_avg", "exp_avg_sq"):
        state.setdefault(kind, torch.zeros_like(buffer)).zero_()
    return state


def forget_order(engine):
    """ZeRO-3 no longer follows the order in which layers are called, up to the next training step.

    It writes down all calls between two steps, to fetch weights ahead, and then looks through what is left of
    them at every call. With an evaluation among them, as behind the first step, these are tens of thousands:
    texts that are generated took hours in place of seconds, and the steps behind them were slow as well.
    """
    if engine.zero_optimization_stage() == 3:
        coordinator = engine.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()


@contextmanager
def plain_linear():
    """torch's linear as every checkpoint is loaded with elsewhere.

    ZeRO-3 replaces it by one that rounds a second time where a bias is added: in bf16 that moves embeddings
    by a last digit, and figures with them.
    """
    swapped, F.linear = F.linear, torch._C._nn.linear
    try:
        yield
    finally:
        F.linear = swapped


@contextmanager
def judging(engine):
    """Evaluation mode, in which every layer computes as it will when the checkpoint is loaded elsewhere."""
    engine.eval()
    forget_order(engine)
    with plain_linear():
        yield


@contextmanager
def at_once(engine):
    """Context in which ZeRO-3 has all weights together on every rank, and fetches none for a layer: for work
    of many short passes, such as answers token by token."""
    if engine.zero_optimization_stage() < 3:
        yield
        return
    from deepspeed.runtime.zero.stage3 import unwrap_model_for_generation

    with unwrap_model_for_generation(engine):
        yield


def spare_compiler():
    """Before DeepSpeed makes an engine: it asks whether the optimizer is its own Muon, and importing that
    wraps functions for torch.compile, which loads torch's whole compiler: 2.5 CPU-seconds of every rank."""
    from deepspeed.runtime import compiler

    wrap = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    except ImportError:
        pass  # before 0.18 there was none
    finally:
        compiler.compile = wrap
