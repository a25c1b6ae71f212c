"""A catalogue cut over ranks: each holds its part of the index, and what they find does not depend on it."""

import os
import threading
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrieval import near_ties, slow_scores

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import shared_table
from pixelrec_train.evaluation.index import unit
from pixelrec_train.evaluation.shards import Shards
from pixelrec_train.evaluation.vectors import Vectors


def on_ranks(ranks, function):
    """[function() of every rank], each in a thread of its own that waits where all ranks meet."""
    here, meeting = threading.local(), threading.Barrier(ranks)
    found, box = [None] * ranks, [None] * ranks

    def gather_objects(value):
        meeting.wait(20)  # everybody has read what was said before
        box[here.rank] = value
        meeting.wait(20)
        return list(box)

    def run(rank):
        here.rank = rank
        try:
            found[rank] = function()
        except InputError as error:
            found[rank] = error

    with (
        patch.object(distributed, "rank", lambda: here.rank),
        patch.object(distributed, "local_rank", lambda: here.rank),
        patch.object(distributed, "world_size", lambda: ranks),
        patch.object(distributed, "gather_objects", gather_objects),
    ):  # fmt: skip
        threads = [threading.Thread(target=run, args=[rank]) for rank in range(ranks)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    return found


def asked(rng, num_items, width, case, ranks):
    """Items, and of each rank (queries, what is left out, targets, who gets lists): more or fewer users."""
    items, queries = near_ties(rng, num_items, width, "far" if case == "twins" else case)
    if case == "twins":  # and no others that fp32 cannot tell apart, as FAISS would
        items = rng.normal(size=(num_items, width)).astype(np.float32)[rng.integers(0, num_items, num_items)]
        queries = rng.normal(size=queries.shape).astype(np.float32)
    questions = []
    for part in np.array_split(queries, ranks):
        seen = [rng.integers(0, num_items, size=rng.integers(0, 1 + num_items // 2)) for _ in part]
        questions.append((part, seen, rng.integers(-1, num_items, len(part)), rng.random(len(part)) < 0.6))
    return items, questions


@given(
    st.sampled_from(["twins", "whole numbers", "one bit apart", "far"]), st.sampled_from([1, 2, 3, 40, 300]),
    st.integers(1, 20), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_places_and_lists_are_the_same_to_the_bit_on_one_two_and_three_ranks(
    case, num_items, k, cosines, seed
):
    """Also with fewer items than ranks, with twins in two parts, and where one rank wants no list."""
    retrieval = "faiss" if case == "twins" else "exact"
    items, questions = asked(np.random.default_rng(seed), num_items, 16, case, 3)
    alone, found = Shards(items, retrieval, cosines), {}
    expected = [alone.find(q, seen, k, target, wanted) for q, seen, target, wanted in questions]

    for ranks in (2, 3):

        def find():
            shards, mine = Shards(items, retrieval, cosines), questions[distributed.rank()]
            queries, seen, target, wanted = mine
            assert shards.end - shards.first <= -(-num_items // distributed.world_size())
            return shards.find(queries, seen, k, target, wanted)

        found[ranks] = on_ranks(ranks, find)
    for ours in found.values():
        for (places, lists), (theirs, their_lists) in zip(ours, expected, strict=False):
            assert np.array_equal(places, theirs)
            assert np.array_equal(lists.items, their_lists.items)
            assert lists.scores.tobytes() == their_lists.scores.tobytes()
    if not cosines:
        for (queries, seen, target, _), (places, _) in zip(questions, expected, strict=True):
            for scores, known, one, place in zip(
                slow_scores(queries, items), seen, target, places, strict=True
            ):
                order = [n for n in np.argsort(-scores, kind="stable") if n not in set(known)][:k]
                assert place == (order.index(one) if one in order else k)


def test_what_is_a_bit_better_than_a_target_of_another_part_is_before_it():
    items = -np.ones((4, 2), np.float32)
    items[0], items[2] = 1, [1 + 2**-21, 1]
    asked = np.ones((1, 2), np.float32), [[]], 3, [0]
    found = on_ranks(2, lambda: Shards(items, "exact", cosines=False).find(*asked))
    assert [places.tolist() for places, _ in found] == [[1], [1]]
    assert [lists.items.tolist() for _, lists in found] == [[[2, 0, 1]]] * 2


def test_vectors_are_rows_of_the_table_with_length_one_to_the_bit():
    rng = np.random.default_rng(0)
    for width in (1, 7, 64, 513):
        table = (rng.normal(size=(2500, width)) * 10.0 ** rng.integers(-3, 4, (2500, 1))).astype(np.float32)
        table[5] = 0
        some = np.sort(rng.choice(2500, 1300, replace=False))
        for numbers in (None, some):
            made = Vectors(table, numbers, cosines=True)
            expected = unit(table)[slice(None) if numbers is None else numbers]
            parts = [part.numpy() for part in made.parts(0, len(made))]
            assert len(parts) > 1 and np.array_equal(np.concatenate(parts), expected)
            picked = rng.integers(0, len(made), 40)
            rows = made.rows(torch.from_numpy(picked)).numpy()
            assert np.array_equal(rows, expected[picked])
            assert np.array_equal(made.part(3, 4).numpy(), expected[3:4])
        assert Vectors(table).part(0, 2500).numpy().base is not None  # a view: no copy of the table


def test_an_index_holds_no_copy_of_the_table():
    table = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
    for rows in (table, np.concatenate([table, table])):  # also where items share vectors
        index = Shards(rows, "exact").index
        assert np.shares_memory(index.vectors.table.numpy(), rows) and len(index.vectors) == 500


def test_a_number_that_is_none_ends_all_ranks_alike():
    table = np.ones((9, 4), np.float32)
    table[1, 1] = np.nan
    first, last = on_ranks(2, lambda: Shards(table, "exact"))
    assert "the embeddings of 1 of 9 items are nan" in str(first) and str(first) == str(last)


def test_a_table_is_shared_by_the_ranks_of_a_machine_and_has_one_writer(capsys):
    found = on_ranks(3, lambda: shared_table.shared_table(40, 8))
    tables, writes = zip(*found, strict=True)
    assert writes == (True, False, False)
    tables[0][:] = 7
    assert all((table == 7).all() and table.shape == (40, 8) for table in tables)
    assert not capsys.readouterr().out
    with pytest.MonkeyPatch.context() as other_machine:  # whose process of that number is another one
        other_machine.setattr(os, "readlink", lambda path: "/memfd:something (deleted)")
        found = on_ranks(3, lambda: shared_table.shared_table(40, 8))
    assert [writes for _, writes in found] == [True, True, True]
    assert "2 ranks hold a table of their own" in capsys.readouterr().out
