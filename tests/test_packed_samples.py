"""Packs as batches: every sample once, labels where they belong, and the same as one text at a time."""

import os
from unittest.mock import patch

import numpy as np
import pytest
import torch

from pixelrec_train import distributed
from pixelrec_train.data.loader import Loader, Slot
from pixelrec_train.data.tokens.mixture import Entry
from pixelrec_train.data.tokens.packed_samples import PackCollator, PackDataset, Packing, Piece
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.tasks.tokens import TokenTask

SOURCES = ("video_rec", "general")


class Store:
    """Samples in memory, as TokenStore gives them; token t of sample i is 10 + (100 i + t) % 61."""

    fingerprint = "made up"

    def __init__(self, lengths, seed=0):
        rng = np.random.default_rng(seed)
        self.lengths = np.array(lengths, np.int32)
        self.is_label = [rng.random(n) < 0.5 for n in lengths]
        for mask in self.is_label:
            mask[0] = False
        self.source = np.arange(len(lengths)) % len(SOURCES)

    def tokens(self, i):
        return (10 + (100 * i + np.arange(self.lengths[i])) % 61).astype(np.int32), self.is_label[i]


def packs_of(store, tmp_path, room=32, how="best_fit", cut=False, seed=3, usable=None):
    usable = np.ones(len(store.lengths), bool) if usable is None else usable
    entries = [Entry(0, len(store.lengths))]
    return PackDataset(store, entries, usable, Packing(room, how, cut), seed, tmp_path)


def all_packs(dataset, epoch=0):
    return [dataset[Slot(epoch, p, p)] for p in range(dataset.samples_in(epoch))]


def test_every_usable_sample_is_in_one_pack_of_every_epoch(tmp_path):
    store = Store(np.random.default_rng(0).integers(1, 30, 200))
    usable = store.lengths > 2
    dataset = packs_of(store, tmp_path, usable=usable)
    for epoch in (0, 1):
        pieces = [tuple(piece.token_ids) for pack in all_packs(dataset, epoch) for piece in pack]
        assert sorted(pieces) == sorted(tuple(store.tokens(i)[0]) for i in np.flatnonzero(usable))
    assert dataset[Slot(0, 0, -1)] == []
    first, second = ([p[0].token_ids.tolist() for p in all_packs(dataset, epoch)] for epoch in (0, 1))
    assert first != second


def test_packs_depend_on_the_seed_and_are_made_once(tmp_path):
    store = Store([*range(2, 30)] * 3)
    one, again, other = (packs_of(store, tmp_path, seed=seed) for seed in (1, 1, 2))
    made = [
        [piece.token_ids.tolist() for pack in all_packs(made_of) for piece in pack]
        for made_of in (one, again, other)
    ]
    assert made[0] == made[1] != made[2]
    assert len(list(tmp_path.glob("packs-*"))) == 2
    with patch.object(PackDataset, "plan", side_effect=AssertionError):
        assert packs_of(store, tmp_path, seed=1).samples_in(0) == one.samples_in(0)


def test_many_epochs_hold_few_files_open(tmp_path):
    dataset = packs_of(Store([5, 9, 20]), tmp_path)

    def files():
        return len(os.listdir("/proc/self/fd"))

    before = files()
    assert [dataset.samples_in(epoch) for epoch in range(20)] == [2] * 20
    assert all(dataset[Slot(epoch, 0, 0)] for epoch in (3, 4, 3)) and files() - before < 10


def test_epochs_without_a_sample_are_refused(tmp_path):
    """The loop would wait for the next one for ever."""
    entries, usable = [Entry(0, 2, epochs=0.4), Entry(2, 3, epochs=0.4)], np.ones(3, bool)
    with pytest.raises(ValueError, match="an epoch would hold less than a sample of any source"):
        PackDataset(Store([5, 9, 20]), entries, usable, Packing(32), 3, tmp_path)


def test_two_ranks_read_together_what_one_reads(tmp_path):
    store = Store(np.random.default_rng(1).integers(1, 30, 90))
    collator = PackCollator(SOURCES, 32, pad_id=0, with_shares=True)

    def epoch(rank, ranks, batch_size, skip=0):
        with patch.multiple(distributed, world_size=lambda: ranks, rank=lambda: rank):
            loader = Loader(packs_of(store, tmp_path), collator, batch_size, seed=5, num_workers=0)
            return list(loader.epoch(1, skip))

    alone = epoch(0, 1, 2)
    shared = [epoch(rank, 2, 1) for rank in (0, 1)]
    for whole, *parts in zip(alone, *shared, strict=True):
        assert whole.labels.tolist() == [x for part in parts for x in part.labels.tolist()]
        assert whole.counts == {n: sum(part.counts[n] for part in parts) for n in whole.counts}
        assert whole.figures == {
            name: tuple(sum(part.figures[name][n] for part in parts) for n in (0, 1))
            for name in whole.figures
        }
    late = epoch(1, 2, 1, skip=7)
    assert [b.labels.tolist() for b in late] == [b.labels.tolist() for b in shared[1][7:]]


def piece(ids, labels, source=0):
    return Piece(np.array(ids, np.int32), np.array(labels, bool), source)


PACK = [piece([5, 6, 7], [0, 1, 1]), piece([8, 9, 10, 11], [1, 0, 0, 1], source=1)]


def test_a_batch_names_what_is_to_be_said_and_where(tmp_path):
    batch = PackCollator(SOURCES, max_length=10, pad_id=3, with_shares=True)([PACK, []])
    assert batch.texts.token_ids.tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert batch.texts.lengths.tolist() == [3, 4]
    assert batch.positions.tolist() == [0, 1, 5] and batch.labels.tolist() == [6, 7, 11]
    assert batch.sources.tolist() == [0, 0, 1]
    assert batch.counts == {"samples": 2, "tokens": 7, "labels": 3}
    assert batch.figures["fill"] == (7, 10)
    assert batch.figures["samples_of/general"] == (1, 2) and batch.figures["tokens_of/video_rec"] == (3, 7)
    whole = PackCollator(SOURCES, 10, 3, one_text=True)([PACK, PACK])
    assert whole.texts.lengths.tolist() == [7, 7] and whole.labels.tolist() == [6, 7, 11] * 2


def test_a_rank_without_a_pack_reads_one_token_and_counts_nothing():
    batch = PackCollator(SOURCES, max_length=10, pad_id=3)([[], []])
    assert batch.texts.token_ids.tolist() == [3] and batch.texts.lengths.tolist() == [1]
    assert len(batch.labels) == len(batch.positions) == len(batch.sources) == 0
    assert batch.counts == {"samples": 0, "tokens": 0, "labels": 0} and batch.figures["fill"] == (0, 0)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    base = write_causal_lm(["a tale of two cities"] * 3, folder / "base", hidden_size=32)
    expand(base, folder / "llm", "onerec", (4, 6), "mean_cov", 0)
    return folder / "llm"


def gradients(task, batches, count):
    """The summed loss over `count` labels, figures, and every gradient."""
    task.zero_grad()
    total, sums = 0.0, {}
    for batch in batches:
        loss, metrics = task(batch)
        part = loss * len(batch.labels) / count
        part.backward()
        total += part.item()
        for name, (x, n) in metrics.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + float(x), before[1] + float(n)
    return total, sums, {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def test_packed_is_unpacked_in_loss_figures_and_gradients(tmp_path, model_dir):
    """One row of many samples, and every sample alone: the same to 1e-5."""
    store = Store([7, 3, 12, 5, 9, 21, 4])
    last = TokenModel.load(model_dir, chunk=5).num_tokens - 1
    for i, mask in enumerate(store.is_label):
        mask[-1] = i != 1  # one sample has no label at all
        if i == 1:
            mask[:] = False
    store.tokens = lambda i: (
        np.append(10 + np.arange(store.lengths[i] - 1) * (i + 3) % 250, last - i).astype(np.int32),
        store.is_label[i],
    )
    collator = PackCollator(SOURCES, 32, pad_id=0)
    task = TokenTask(TokenModel.load(model_dir, chunk=5), None, sources=SOURCES)
    packs = all_packs(packs_of(store, tmp_path))
    assert len(packs) < len(store.lengths)
    together = [collator(packs)]
    alone = [collator([[piece]]) for pack in packs for piece in pack]
    count = len(together[0].labels)
    (ours, figures, ours_grad), (theirs, singly, theirs_grad) = (
        gradients(task, batches, count) for batches in (together, alone)
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    for name in ("text_loss", "itemic_loss", "video_rec/loss", "general/top1", "level1_loss"):
        assert figures[name] == pytest.approx(singly[name], abs=1e-4), name
    assert ours_grad.keys() == theirs_grad.keys()
    for name, gradient in ours_grad.items():
        assert torch.allclose(gradient, theirs_grad[name], atol=1e-5), name


def test_one_text_sees_the_samples_before_it(model_dir):
    model = TokenModel.load(model_dir, chunk=5)
    pack = [piece([5, 6, 7, 9], [0, 1, 1, 1]), piece([8, 9, 10, 11], [0, 0, 0, 1], source=1)]
    (_, apart, _), (_, joined, _) = (
        model(PackCollator(SOURCES, 10, 3, one_text)([pack])) for one_text in (False, True)
    )
    assert torch.allclose(apart[:3], joined[:3], atol=1e-6) and not torch.allclose(apart[3], joined[3])


def test_sources_are_measured_apart_and_add_up(model_dir):
    task = TokenTask(TokenModel.load(model_dir, chunk=5), None, sources=SOURCES)
    _, metrics = task(PackCollator(SOURCES, 10, 3)([PACK]))
    loss = {name: metrics[f"{name}/loss"] for name in SOURCES}
    assert [int(count) for _, count in loss.values()] == [2, 1]
    total = metrics["text_loss"][0] + metrics["itemic_loss"][0]
    assert float(sum(x for x, _ in loss.values())) == pytest.approx(float(total), rel=1e-5)


def test_flops_are_those_of_the_matrices_and_of_attention(model_dir):
    task = TokenTask(TokenModel.load(model_dir, chunk=5), None)
    batch = PackCollator(SOURCES, 10, 3)([PACK])
    config = task.model.backbone.config
    weights = sum(p.numel() for p in task.model.backbone.parameters() if p.dim() == 2)
    pairs = (3 * 3 + 4 * 4) // 2
    attention = 2 * pairs * config.head_dim * config.num_attention_heads * config.num_hidden_layers
    head = task.model.num_tokens * 32 * 3
    assert task.flops(batch) == 6 * 7 * weights + 6 * head + 6 * attention
    frozen = TokenTask(TokenModel.load(model_dir, chunk=5), None)
    frozen.model.train_new_rows_only()
    assert frozen.flops(batch) == 4 * 7 * weights + 6 * head + 6 * attention
