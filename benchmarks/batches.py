"""Micro-batches with amazon_scientific's popularity and lengths: windows of 11 items, 11 negatives each."""

import copy
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoModel

from benchmarks.inputs import LONGEST_TEXT
from pixelrec_train import distributed
from pixelrec_train.data.interactions import cut_windows
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.negatives import NegativeSampler
from pixelrec_train.data.windows import TwoTowerCollator
from pixelrec_train.model import cpu_layers, text_encoder
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.run import resources
from pixelrec_train.tasks.two_tower import TwoTowerTask

ITEMS, USERS, LENGTH = 4_000, 8_000, 11
SMALL = {"hidden": 64, "layers": 1, "windows": 2}


def two_tower(config, as_theirs=False, dtype=torch.float32, device="cpu"):
    """TwoTowerTask with random towers, the same each time.

    as_theirs: compute every token of the item tower's last layer, by transformers' own layers.
    """
    torch.manual_seed(0)
    resources.keep_freed_memory()  # as a training does
    with torch.device(device):
        item, user = (AutoModel.from_config(copy.deepcopy(config), dtype=dtype) for _ in range(2))
    shortcut = text_encoder.read_last_tokens_alone if not as_theirs else lambda backbone: list
    layers = cpu_layers.put_in if not as_theirs else lambda backbone: None
    with (
        patch.object(text_encoder, "read_last_tokens_alone", shortcut),
        patch.object(cpu_layers, "put_in", layers),
    ):
        model = HLLMModel(text_encoder.TextEncoder(item, 1, LONGEST_TEXT + 1), user)
    settings = SimpleNamespace(item_dir=None, nce_thres=0.99, nce_chunk=None, loss_weighting="position")
    return TwoTowerTask(model, settings, settings.item_dir).to(device)


def windows_of(inputs):
    """Training windows of users like amazon_scientific's, in random order."""
    histories = inputs.histories(USERS, ITEMS)
    lengths = np.array([len(history) for history in histories])
    starts = np.cumsum(lengths) - lengths
    flat = np.concatenate(histories)
    bounds = cut_windows(starts, starts + np.maximum(lengths - 2, 0), LENGTH)
    order = np.random.default_rng(4).permutation(len(bounds))
    return [flat[a:b] for a, b in bounds[order]]


def collator_and_samples(inputs, windows):
    """Our collator, and (slot, window, no times) of one micro-batch of all ranks."""
    found = windows_of(inputs)
    counts = np.bincount(np.concatenate(found), minlength=ITEMS)
    sampler = NegativeSampler(counts, LENGTH, LENGTH, seed=0)
    collator = TwoTowerCollator(inputs.item_text(ITEMS), sampler, LENGTH)
    return collator, [(Slot(0, n, n), window, None) for n, window in enumerate(found[:windows])]


def batches(inputs, windows, ranks, share_items=True):
    """One micro-batch as each of `ranks` ranks gets it, `windows` windows each.

    share_items: False = every rank encodes whatever it looks at.
    """
    found = []
    for rank in range(ranks):
        with patch.multiple(distributed, world_size=lambda: ranks, rank=lambda rank=rank: rank):
            collator, samples = collator_and_samples(inputs, windows * ranks)
            with patch.object(type(collator.item_text), "is_read", share_items):
                found.append(collator(samples))
    return found


def occurrences(collator, samples):
    """The same windows as HLLM lays them out: every place of every window and every negative is a text.

    Returns:
        (PackedTexts of [W * 11 positives, padding places random items; W * 11 negatives], [W, 10] valid)
    """
    rng = np.random.default_rng(5)
    positives = rng.integers(0, ITEMS, (len(samples), LENGTH))
    valid = np.zeros((len(samples), LENGTH), bool)
    for row, real, (_, window, _) in zip(positives, valid, samples, strict=True):
        row[: len(window)], real[: len(window)] = window, True
    negatives = np.concatenate([collator.sampler.draw(slot, window) for slot, window, _ in samples])
    items = collator.item_text.items(np.concatenate([positives.ravel(), negatives]))
    return items, torch.from_numpy(valid[:, 1:])
