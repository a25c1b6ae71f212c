"""A task becomes a DeepSpeed engine."""

from pixelrec_train.engine.optim import build_optimizer


def build_engine(task, config, ds_config, total_steps):
    """Wrap task, optimizer and schedule; every rank calls it. engine(batch) then returns (loss, metrics)."""
    import deepspeed

    optimizer, schedule = build_optimizer(task, config, total_steps)
    engine, *_ = deepspeed.initialize(
        model=task, optimizer=optimizer, lr_scheduler=schedule, config=ds_config
    )
    return engine
