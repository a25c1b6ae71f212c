"""What an epoch takes in memory and time: planned where a formula knows it, else measured on this device."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.run.log import duration
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings.plan import describe_plan, size
from pixelrec_train.trainings.train_two_tower import build_loader, prepare, save_memory_or_time

MICRO_BATCHES = 5  # measured, after one to warm up
READ = 256  # texts
PATIENCE = 20  # seconds, after which the measurement is as long as it gets


def epoch_cost(config):
    """Lines: the plan for --dry_run ranks, and what one rank of them needs here.

    Raises:
        InputError: towers, flags and data do not fit together.
    """
    ranks = config.dry_run or 1
    inputs, known, model, resolved = prepare(config, ranks)
    yield from describe_plan(config, inputs, model, resolved, ranks)[len(inputs.describe()) :]
    device = distributed.device()
    task = TwoTowerTask(model, config, config.item_dir).to(device)
    for parameter in task.parameters():  # and not the buffers, as in training
        parameter.data = parameter.data.to(torch.bfloat16 if config.bf16 else torch.float32)
    save_memory_or_time(model, config, resolved)
    # One rank stands for them all: it draws the negatives that fall to each.
    pool = config.negatives_per_window(ranks) * config.per_device_train_batch_size
    alone = dataclasses.replace(config, num_negatives=pool, dataloader_num_workers=0)
    try:
        reading = seconds_to_read(model, inputs.item_text, device)
        if config.freeze_item_llm:
            model.store_texts(torch.randn(inputs.interactions.num_items, model.item_llm.width))
        times, tokens, activations = measure(task, build_loader(alone, inputs, known), device)
    except torch.OutOfMemoryError:
        yield f"measured: a micro-batch does not fit into this {device.type}. {LESS}"
        return
    yield (
        f"activations: about {size(activations)} at their peak, with a micro-batch of "
        f"{config.per_device_train_batch_size} windows"
    )
    batches = -(-len(inputs.split.windows) // (config.per_device_train_batch_size * ranks))
    seconds = sum(times) / len(times)
    speed = f" ({sum(tokens) / sum(times):,.0f} tokens/s)" if sum(tokens) else ""
    yield f"epoch: {batches:,} micro-batches x {seconds:.3g} s = {duration(batches * seconds)}{speed}"
    if inputs.item_text.is_read:
        when = "once, before training" if config.freeze_item_llm else "in each evaluation"
        total = f"{len(inputs.item_text.tokens):,} tokens"
        yield f"catalogue: {total}, read {when}, in {duration(reading / ranks)}"
    yield f"(measured on {len(times)} micro-batches here, one rank, without optimizer and communication)"


LESS = "Try --item_chunk_tokens 8192, a smaller --per_device_train_batch_size or --max_text_length."


@torch.no_grad()
def seconds_to_read(model, item_text, device):
    """For the whole catalogue, measured on some of its texts; 0 where none is read."""
    if not item_text.is_read:
        return 0.0
    model.eval()
    numbers = np.random.default_rng(0).permutation(len(item_text.lengths))[:READ]
    for part in (numbers[:4], numbers):  # the first one warms up
        items = item_text.items(part).to(device)
        started = time.monotonic()
        model.encode_texts(items).sum().item()  # waits for a GPU
        seconds = time.monotonic() - started
    return seconds * len(item_text.tokens) / item_text.lengths_of(numbers).sum()


def measure(task, loader, device):
    """(seconds of each micro-batch, its item tokens, bytes of activations at the peak).

    Forward and backward pass. The first one warms up, and does not count unless it is the only one.
    """
    task.train()
    memory = Memory(device)
    times, tokens = [], []
    for batch in loader.epoch(0):
        started = time.monotonic()
        loss, _ = task(batch.to(device))
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
        tokens.append(batch.num_tokens)
        if len(times) > MICRO_BATCHES or sum(times[1:]) > PATIENCE:
            break
    gradients = sum(p.grad.nbytes for p in task.parameters() if p.grad is not None)
    first = int(len(times) > 1)
    return times[first:], tokens[first:], max(memory.growth() - gradients, 0)


class Memory:
    """Bytes a device takes more at its peak than when this was made; of a CPU, what the process does."""

    def __init__(self, device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here; Linux only
        self.before = torch.cuda.memory_allocated() if device.type == "cuda" else resident("VmRSS")

    def growth(self):
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else resident("VmHWM")
        return peak - self.before


def resident(field):
    """VmRSS (now) or VmHWM (peak) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
