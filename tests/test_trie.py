"""The trie of a catalogue says what a dictionary of prefixes says."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.semantic_id.codes import ABSENT
from pixelrec_train.semantic_id.trie import Trie


@st.composite
def catalogues(draw):
    """codes [N, L] with shared ids and shorter ones, popularity [N], and a part of the items."""
    items, levels = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, draw(st.sampled_from([2, 5, 8192])), (items, levels)).astype(np.int32)
    if draw(st.booleans()):
        codes[np.arange(levels) >= rng.integers(1, levels + 1, items)[:, None]] = ABSENT
    part = rng.choice(items, rng.integers(1, items + 1), replace=False) if draw(st.booleans()) else None
    return codes, rng.integers(0, 3, items), part


@given(catalogues())
@settings(max_examples=150, deadline=None)
def test_children_and_items_are_those_of_a_dictionary_of_prefixes(drawn):
    codes, popularity, part = drawn
    trie = Trie.of(codes, popularity, part)
    chosen = range(len(codes)) if part is None else sorted(part.tolist())
    ids = {i: tuple(codes[i].tolist()) for i in chosen}
    prefixes = {(): 0}  # of the nodes of a level, to their numbers
    for level in range(trie.levels):
        following = {}
        for prefix, node in prefixes.items():
            found, nodes, real = (t[0] for t in trie.children(level, torch.tensor([node])))
            expected = sorted({i[level] for i in ids.values() if i[:level] == prefix})
            assert found[real].tolist() == expected
            following |= {(*prefix, c): n for c, n in zip(expected, nodes[real].tolist(), strict=True)}
        prefixes = following
    assert trie.num_leaves == len(set(ids.values())) == len(prefixes)
    for leaf, prefix in ((leaf, prefix) for prefix, leaf in prefixes.items()):
        owners = [i for i in ids if ids[i] == prefix]
        owners.sort(key=lambda i: (-popularity[i], i))
        assert trie.leaf_items[trie.leaf_ptr[leaf] : trie.leaf_ptr[leaf + 1]].tolist() == owners
        assert tuple(trie.ids()[leaf].tolist()) == prefix
        assert (trie.leaf_of[owners] == leaf).all()
    assert (np.delete(trie.leaf_of, list(chosen)) == -1).all()


def test_ids_too_wide_for_one_number_are_sorted_the_same():
    codes = np.random.default_rng(0).integers(0, 8192, (300, 7)).astype(np.int32)
    codes[:, :3] = codes[0, :3]
    ids = Trie.of(codes).ids()
    assert np.array_equal(ids, np.unique(codes, axis=0))


def test_a_level_8192_wide_lists_all_its_codes():
    codes = np.stack([np.arange(8192), np.zeros(8192, int)], axis=1)[::-1]
    trie = Trie.of(np.ascontiguousarray(codes))
    found, _, real = trie.children(0, torch.tensor([[0], [0]]))
    assert found.shape == (2, 1, 8192) and real.all() and torch.equal(found[1, 0], torch.arange(8192))
    assert trie.fanout == (8192, 1)


def test_an_empty_part_of_the_catalogue_is_refused():
    with pytest.raises(ValueError, match="at least one item"):
        Trie.of(np.zeros((3, 2), int), items=[])


def test_400_000_items_are_built_in_half_a_second():
    rng = np.random.default_rng(0)
    codes, popularity = rng.integers(0, 8192, (400_000, 3)).astype(np.int32), rng.integers(0, 99, 400_000)
    spent = []
    for _ in range(3):
        started = time.process_time()
        Trie.of(codes, popularity)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.5
