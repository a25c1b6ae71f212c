"""A task becomes a DeepSpeed engine."""

import torch

from pixelrec_train import distributed
from pixelrec_train.engine.optim import build_optimizer
from pixelrec_train.engine.zero import spare_compiler
from pixelrec_train.errors import InputError
from pixelrec_train.run import resources


def build_engine(task, loop, resolved, total_steps):
    """Wrap task, optimizer and schedule; every rank calls it. engine(batch) then returns (loss, metrics).

    Raises:
        InputError: DeepSpeed knows no such setting as the JSON has.
    """
    import deepspeed
    from pydantic import ValidationError

    offloaded = "offload_optimizer" in resolved["zero_optimization"]
    optimizer, schedule = build_optimizer(task, loop, total_steps, offloaded)
    spare_compiler()
    if not distributed.uses_gpu():
        resources.keep_freed_memory()
    try:
        engine, *_ = deepspeed.initialize(
            model=task, optimizer=optimizer, lr_scheduler=schedule, config=resolved
        )
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"--deepspeed {loop.deepspeed}: DeepSpeed refuses {wrong}.") from None
    torch.manual_seed(loop.seed + 1000 * distributed.rank())  # weights are made; dropout differs by rank
    return engine
