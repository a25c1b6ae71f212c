"""Which window goes where, with which negatives."""

import sys
from unittest.mock import patch

import numpy as np
import pytest
from conftest import inputs_of, run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train import distributed
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.loader import Loader, ShardedBatches, Slot
from pixelrec_train.data.negatives import NegativeSampler
from pixelrec_train.data.shares import Shares
from pixelrec_train.data.windows import HistoryDataset, TwoTowerCollator
from pixelrec_train.errors import InputError


def as_rank(rank, ranks):
    return patch.multiple(distributed, world_size=lambda: ranks, rank=lambda: rank)


def epoch_of(windows, ranks, batch_size, epoch=0, start=0):
    """[micro-batch] -> slots of all ranks, which every rank sees alike, and of which it takes its own."""
    seen = []
    for rank in range(ranks):
        with as_rank(rank, ranks):
            batches, own = (
                ShardedBatches(lambda epoch: windows, batch_size, 7, of_all) for of_all in (True, False)
            )
            batches.start_at(epoch, start)
            own.start_at(epoch, start)
            seen.append(list(batches))
            assert len(seen[-1]) == batches.batches_in(epoch) - start
            assert list(own) == [batch[rank::ranks] for batch in seen[-1]]
    assert all(batches == seen[0] for batches in seen)
    return seen[0]


SIZES = st.integers(1, 500), st.integers(1, 8), st.integers(1, 16)  # windows, ranks, windows per rank


@given(*SIZES, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_window_exactly_once_and_all_ranks_in_step(windows, ranks, batch_size, epoch):
    batches = epoch_of(windows, ranks, batch_size, epoch)
    slots = [slot for batch in batches for slot in batch]
    assert all(len(batch) == batch_size * ranks for batch in batches)
    assert sorted(s.sample for s in slots if s.sample >= 0) == list(range(windows))
    assert len({s.position for s in slots}) == len(slots)


def test_epochs_may_differ_in_length():
    batches = ShardedBatches([5, 9].__getitem__, 2, 7)
    assert [batches.batches_in(epoch) for epoch in (0, 1)] == [3, 5]
    for epoch, samples in enumerate((5, 9)):
        batches.start_at(epoch, 0)
        seen = [slot.sample for batch in batches for slot in batch]
        assert sorted(s for s in seen if s >= 0) == list(range(samples))


def test_the_global_order_does_not_depend_on_the_number_of_ranks():
    steps = [epoch_of(101, ranks, 8 // ranks, epoch=2) for ranks in (1, 2, 4)]
    assert steps[0] == steps[1] == steps[2]


def test_epochs_differ():
    assert epoch_of(50, 2, 4, epoch=1) != epoch_of(50, 2, 4, epoch=0)


@given(*SIZES, st.integers(0, 3), st.data())
@settings(max_examples=100, deadline=None)
def test_any_position_can_be_taken_up_again_on_other_ranks_with_the_same_global_batch(
    windows, ranks, batch_size, epoch, data
):
    whole = epoch_of(windows, ranks, batch_size, epoch)
    start = data.draw(st.integers(0, len(whole)))
    divisors = [r for r in range(1, 9) if ranks * batch_size % r == 0]
    others = data.draw(st.sampled_from(divisors))
    rest = epoch_of(windows, others, ranks * batch_size // others, epoch, start)
    assert rest == whole[start:]
    seen = [slot.sample for batch in whole[:start] + rest for slot in batch if slot.sample >= 0]
    assert sorted(seen) == list(range(windows))


tokens = st.lists(st.integers(1, 300), min_size=1, max_size=400)


@given(tokens, st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_every_item_has_one_place_in_one_rank_and_no_rank_reads_much_more_than_the_mean(tokens, ranks):
    tokens = np.array(tokens)
    distinct = np.arange(len(tokens)) * 3
    plans = [Shares.plan(distinct, tokens, rank, ranks) for rank in range(ranks)]
    table = np.full(ranks * plans[0].rows, -1)
    for rank, plan in enumerate(plans):
        assert np.array_equal(plan.place, plans[0].place) and np.array_equal(plan.tokens, plans[0].tokens)
        assert len(plan.mine) >= 1
        if plan.tokens[rank]:  # a rank without a share reads one item that nobody looks at
            table[rank * plan.rows : rank * plan.rows + len(plan.mine)] = plan.mine
            assert tokens[plan.mine // 3].sum() == plan.tokens[rank]
    assert np.array_equal(table[plans[0].place], distinct)
    assert (table >= 0).sum() == len(distinct)
    # Graham's bound: the fullest rank ends at most one text above the mean.
    assert plans[0].tokens.max() <= tokens.sum() / ranks + tokens.max()


ITEMS = 40
NUMBERS = st.integers(0, ITEMS - 1)


def made_texts(lengths):
    """ItemText in which every token says whose it is: item x 1000 + place."""
    tokens = [item * 1000 + place for item, length in enumerate(lengths) for place in range(length)]
    return ItemText(np.array(tokens, np.int32), np.cumsum([0, *lengths]), 0, 0, "made")


@given(st.data(), st.booleans(), st.integers(1, 5), st.lists(NUMBERS, min_size=1, max_size=25))
@settings(max_examples=100, deadline=None)
def test_batches_of_all_ranks_give_back_every_window_the_pool_and_their_texts(data, read, ranks, negatives):
    lengths = [1 + 7 * item % 9 for item in range(ITEMS)]
    item_text = made_texts(lengths) if read else ItemText.unread(ITEMS)
    window = st.lists(NUMBERS, max_size=6)  # an empty one fills up a last batch
    count = data.draw(st.integers(1, 4)) * ranks
    windows = [np.array(w, int) for w in data.draw(st.lists(window, min_size=count, max_size=count))]
    negatives, batches = np.array(negatives), []
    for rank in range(ranks):
        with as_rank(rank, ranks):
            batches.append(TwoTowerCollator(item_text, None, 6).collate(windows, negatives))
    shared = np.full((ranks, batches[0].rows), -1)
    for row, batch in zip(shared, batches, strict=True):
        row[: batch.num_items] = batch.items.numbers.numpy()[: batch.rows]
        texts = [[i * 1000 + n for n in range(lengths[i])] for i in batch.items.numbers.tolist()]
        assert batch.items.texts.token_ids.tolist() == (sum(texts, []) if read else [])
    for rank, batch in enumerate(batches):
        table = shared.ravel() if read else batch.items.numbers.numpy()
        assert table[batch.negatives.numpy()].tolist() == negatives.tolist()
        mine = windows[rank::ranks]
        for places, valid, window in zip(batch.window.numpy(), batch.valid, mine, strict=True):
            assert table[places[: len(window)]].tolist() == window.tolist()
            assert valid.tolist() == [s + 1 < len(window) for s in range(5)]
        assert batch.mean_steps == pytest.approx(sum(max(len(w) - 1, 0) for w in windows) / ranks)
        assert batch.num_users == sum(len(w) > 0 for w in mine)
    distinct = len(np.unique(np.concatenate([*windows, negatives])))
    if read:  # a rank without an item reads one all the same
        assert sum(batch.num_items for batch in batches) == max(distinct, ranks)


def test_as_many_chunks_on_every_rank_as_the_largest_share_needs(demo_config):
    item_text = inputs_of(demo_config).item_text
    for rank in range(2):
        with as_rank(rank, 2):
            collator = TwoTowerCollator(item_text, None, 6, (0, 50))
            batch = collator.collate([np.arange(6)] * 4, np.arange(20, 40))
        largest = Shares.plan(batch_items := np.r_[:6, 20:40], item_text.lengths_of(batch_items), 0, 2)
        assert batch.chunks == -(-largest.tokens.max() // 50) > 1
    most = int(largest.tokens.max())
    for at_once, chunks in ((most, 1), (most - 1, -(-most // 50))):
        assert TwoTowerCollator(item_text, None, 6, (at_once, 50)).chunks_of(most) == chunks
    assert TwoTowerCollator(item_text, None, 6).chunks_of(10**9) == 1


def sampler(per_window=6, seed=0, items=20):
    return NegativeSampler(np.arange(items) % 4, per_window, 5, seed)  # every fourth item is cold


@given(st.integers(0, 5), st.integers(0, 500), st.lists(st.integers(0, 19), max_size=5))
@settings(max_examples=200, deadline=None)
def test_negatives_are_training_items_outside_the_window_and_repeatable(epoch, position, window):
    slot = Slot(epoch, position, 0)
    drawn = sampler().draw(slot, np.array(window, int))
    assert len(drawn) == 6
    assert not set(drawn) & set(window)
    assert (drawn % 4 != 0).all()
    assert np.array_equal(drawn, sampler().draw(slot, np.array(window, int)))


def test_negatives_change_with_epoch_position_and_seed():
    window = np.array([1, 2])
    variants = ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0))
    draws = [tuple(sampler(30, seed=s).draw(Slot(e, p, 0), window)) for s, e, p in variants]
    assert len(set(draws)) == 4


def test_every_training_item_is_drawn_about_equally_often():
    drawn = np.concatenate([sampler(50).draw(Slot(0, p, 0), np.array([], int)) for p in range(300)])
    counts = np.bincount(drawn, minlength=20)
    assert (counts[::4] == 0).all()
    assert 0.85 < counts[counts > 0].min() / 1000 and counts.max() / 1000 < 1.15


def test_a_catalogue_too_small_for_negatives_is_refused():
    with pytest.raises(InputError, match="too few to draw negatives"):
        NegativeSampler(np.ones(5), 3, 5, 0)


def test_a_batch_points_at_distinct_items_and_gives_back_what_went_in(demo_config):
    inputs = inputs_of(demo_config)
    collator = TwoTowerCollator(inputs.item_text, None, 6)
    windows = [np.array([4, 9, 4, 2]), np.array([], int), np.array([1, 2, 3, 4, 5, 6])]
    negatives = np.array([9, 9, 30, 31])
    batch = collator.collate(windows, negatives)
    distinct = np.array([1, 2, 3, 4, 5, 6, 9, 30, 31])
    assert batch.num_items == len(distinct)
    assert batch.items.texts.token_ids.tolist() == inputs.item_text.pack(distinct).token_ids.tolist()
    for row, window in zip(batch.window.numpy(), windows, strict=True):
        assert distinct[row[: len(window)]].tolist() == window.tolist()
    assert distinct[batch.negatives].tolist() == negatives.tolist()
    assert batch.valid.tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert (batch.num_users, batch.num_tokens) == (2, len(batch.items.texts.token_ids))


def test_workers_prepare_the_same_batches_as_the_training_process(demo_config):
    inputs = inputs_of(demo_config)

    def batches(workers):
        draw = NegativeSampler(inputs.split.train_counts, 6, 6, seed=3)
        dataset = HistoryDataset(inputs.split)
        loader = Loader(
            dataset, TwoTowerCollator(inputs.item_text, draw, 6), 8, 3, workers, of_all_ranks=True
        )
        epochs = list(loader.epoch(0)) + list(loader.epoch(1)) + list(loader.epoch(1, skip=2))
        return [
            (b.items.texts.token_ids.tolist(), b.window.tolist(), b.negatives.tolist(), b.num_users)
            for b in epochs
        ]

    assert batches(0) == batches(2)


WORKER = """
import os, signal, sys, time
from pixelrec_train.data.loader import Loader

class Numbers:
    def __len__(self):
        return 100
    def __getitem__(self, slot):
        return slot.sample

loader = Loader(Numbers(), lambda samples: samples, batch_size=1, seed=0, num_workers=1)
batches = loader.epoch(0)
next(batches)
[worker] = loader.loader._iterator._workers
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    os.kill(worker.pid, number)
print(len(list(batches)), worker.is_alive(), flush=True)
kept = [batches, loader.loader._iterator]
kept.append(kept)  # alive when the interpreter ends
"""


def test_a_worker_outlives_signals_but_not_its_rank():
    result = run_command([sys.executable, "-c", WORKER], timeout=60)
    assert (result.returncode, result.stdout) == (0, "99 True\n"), result.stderr
