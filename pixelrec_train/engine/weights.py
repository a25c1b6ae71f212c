"""Whole weights out of and into a module, also where ZeRO-3 has cut them into shards."""

import contextlib

import torch
from torch import nn

from pixelrec_train import distributed
from pixelrec_train.engine.zero import is_cut
from pixelrec_train.run import watchdog


def whole(parameters, writer_rank=None):
    """Context in which these parameters are complete on every rank; writer_rank's changes are kept."""
    if not any(map(is_cut, parameters)):
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=writer_rank)


def cpu_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """The complete state dict on rank 0's CPU, {} elsewhere; one parameter at a time. All ranks call it."""
    keep = distributed.rank() == 0
    state = {}
    for name, parameter in module.named_parameters():
        with whole([parameter]):
            if keep:
                state[name] = parameter.detach().to("cpu", copy=True)
    return state


def load_weights(module: nn.Module, source: nn.Module):
    """Copy the weights of an unpartitioned twin into a module that may be partitioned. All ranks call it."""
    twins = dict(source.named_parameters())
    overwrite(module.named_parameters(), twins.get)


def overwrite(named_parameters, value_of):
    """Set parameters that may be partitioned to value_of(name), tensors of their size. All ranks call it."""
    with torch.no_grad():
        for name, parameter in named_parameters:
            watchdog.at("putting weights in place")
            with whole([parameter], writer_rank=0):
                if not is_cut(parameter) or distributed.rank() == 0:
                    parameter.copy_(value_of(name).view(parameter.shape))
