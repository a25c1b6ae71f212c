"""Which samples make a pack: everything is packed once, nothing overflows, and as few packs as can be."""

import heapq
from bisect import bisect_left, insort

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.data.tokens.packs import WAYS, pack

EVERY_WAY = pytest.mark.parametrize("how", WAYS)


@st.composite
def samples(draw):
    """(lengths, room); few different lengths as well as many."""
    room = draw(st.integers(1, 80))
    longest = draw(st.integers(1, room))
    return draw(st.lists(st.integers(1, longest), max_size=120)), room


def read(packs):
    """[[(sample, length)]] of all packs."""
    return [list(zip(*(a.tolist() for a in packs.pieces(p)), strict=True)) for p in range(len(packs))]


def greedy_as_told(lengths, room, cut):
    """OpenOneRec's loop over samples, and its last pack."""
    done, buffer, held = [], [], 0
    for place, length in enumerate(lengths):
        if held + length < room:
            buffer.append((place, length))
            held += length
        elif cut:
            done.append([*buffer, (place, room - held)])
            buffer, held = [], 0
        else:
            done.append(buffer)
            buffer, held = [(place, length)], length
    return [p for p in [*done, buffer] if p]


def best_fit_by_sample(lengths, room):
    """Tokens of every pack, ascending, when samples are taken one at a time, longest first."""
    spaces = []
    for length in sorted(lengths, reverse=True):
        place = bisect_left(spaces, length)
        space = spaces.pop(place) if place < len(spaces) else room
        insort(spaces, space - length)
    return sorted(room - space for space in spaces)


def even_by_sample(lengths, room):
    """The same where each goes into the emptiest pack, and another is opened only if it has no room there."""
    spaces = [-room] * -(-sum(lengths) // room)
    for length in sorted(lengths, reverse=True):
        if not spaces or -spaces[0] < length:
            heapq.heappush(spaces, -room)
        heapq.heapreplace(spaces, spaces[0] + length)
    return sorted(room + space for space in spaces)


@EVERY_WAY
@given(samples())
@settings(max_examples=200, deadline=None)
def test_every_sample_exactly_once_and_no_pack_over_its_room(how, given):
    lengths, room = given
    packs = pack(lengths, room, how)
    assert sorted(packs.sample.tolist()) == list(range(len(lengths)))
    assert packs.length.tolist() == [lengths[s] for s in packs.sample]
    held = [sum(length for _, length in pieces) for pieces in read(packs)]
    assert all(0 < tokens <= room for tokens in held)
    assert packs.first[0] == 0 and packs.first[-1] == len(lengths)
    assert packs.fill(room) == (pytest.approx(np.mean(held) / room) if lengths else 1)


@pytest.mark.parametrize(
    "how, slow", [("best_fit", best_fit_by_sample), ("even", even_by_sample)], ids=WAYS[:2]
)
@given(samples())
@settings(max_examples=300, deadline=None)
def test_equal_packs_at_a_time_fill_as_one_sample_at_a_time(how, slow, given):
    lengths, room = given
    held = sorted(sum(length for _, length in pieces) for pieces in read(pack(lengths, room, how)))
    assert held == slow(lengths, room)


@pytest.mark.parametrize("cut", [False, True], ids=["uncut", "cut"])
@given(samples())
@settings(max_examples=200, deadline=None)
def test_greedy_is_the_loop_over_samples(cut, given):
    lengths, room = given
    assert read(pack(lengths, room, "greedy", cut)) == greedy_as_told(lengths, room, cut)


# What OpenOneRec's own code makes of 14 samples at max_length 96, and of what is left over our last pack.
THEIRS = [24, 24, 43, 25, 54, 36, 28, 49, 29, 22, 11, 15, 15, 9]
THEIR_PACKS = {
    "uncut": [[24, 24, 43], [25, 54], [36, 28], [49, 29], [22, 11, 15, 15, 9]],
    "cut": [[24, 24, 43, 5], [54, 36, 6], [49, 29, 18], [11, 15, 15, 9]],
}


@pytest.mark.parametrize("name", THEIR_PACKS)
def test_greedy_packs_are_openonerecs(name):
    packs = pack(THEIRS, 96, "greedy", cut=name == "cut")
    assert [[length for _, length in pieces] for pieces in read(packs)] == THEIR_PACKS[name]
    assert packs.sample.tolist() == list(range(14))


def test_a_greedy_pack_of_several_samples_ends_before_it_is_full():
    assert read(pack([6, 4, 5], 10, "greedy")) == [[(0, 6)], [(1, 4), (2, 5)]]
    assert read(pack([6, 4, 5], 10, "greedy", cut=True)) == [[(0, 6), (1, 4)], [(2, 5)]]
    assert read(pack([6, 4, 5], 10)) == [[(0, 6), (1, 4)], [(2, 5)]]


@pytest.mark.parametrize("how", ["best_fit", "even"])
def test_samples_of_a_length_are_handed_out_in_the_order_given(how):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 500)
    packs, order = pack(lengths, 100, how), rng.permutation(500)
    for length in range(1, 30):
        assert packs.sample[packs.length == length].tolist() == np.flatnonzero(lengths == length).tolist()
    other = pack(lengths[order], 100, how)
    assert np.array_equal(other.length, packs.length) and np.array_equal(other.first, packs.first)
    assert not np.array_equal(order[other.sample], packs.sample)


@EVERY_WAY
def test_packs_depend_on_nothing_but_the_lengths(how):
    lengths = np.random.default_rng(0).integers(1, 300, 2000)
    once, again = (pack(kind, 2048, how) for kind in (lengths.astype(np.uint16), lengths.tolist()))
    for field in ("first", "sample", "length"):
        assert np.array_equal(getattr(once, field), getattr(again, field))
    assert (once.first.dtype, once.sample.dtype, once.length.dtype) == (np.int64, np.int32, np.int32)


@EVERY_WAY
@pytest.mark.parametrize(
    "lengths, packs",
    [([], []), ([7], [[7]]), ([9, 9, 9], [[9], [9], [9]]), ([1] * 4, [[1] * 4])],
    ids=["none", "one", "all_full", "all_ones"],
)
def test_the_ends_of_the_range(how, lengths, packs):
    assert [[length for _, length in pieces] for pieces in read(pack(lengths, 9, how))] == packs


def drawn(samples, mean, sigma, room):
    lengths = np.random.default_rng(mean).lognormal(np.log(mean) - sigma**2 / 2, sigma, samples)
    return np.ceil(lengths[lengths <= room]).astype(np.int32)


@pytest.mark.parametrize(
    "mean, sigma, room",
    [(500, 1.0, 32768), (3000, 0.6, 32768), (300, 0.8, 2048), (3000, 1.0, 100_000)],
    ids=["short", "long", "small_room", "large_room"],
)
def test_fill_is_98_percent_where_greedy_is_not(mean, sigma, room):
    lengths = drawn(30_000, mean, sigma, room)
    best, even, plain = (pack(lengths, room, how) for how in WAYS)
    assert 0.98 <= even.fill(room) <= best.fill(room)
    assert plain.fill(room) < best.fill(room)
    # All tokens in one row would need that many, samples cut anywhere.
    assert len(best) <= 1.002 * -(-int(lengths.sum()) // room) + 1


def test_even_packs_are_a_like_mix_of_two_sources():
    """Short labels and long thoughts: best fit would give each packs of its own."""
    lengths = np.concatenate([drawn(20_000, 300, 0.6, 32768), drawn(2_000, 3000, 0.6, 32768)])
    is_short, spread = np.arange(len(lengths)) < 20_000, {}
    for how in WAYS:
        packs = pack(lengths, 32768, how)
        short = np.add.reduceat(packs.length * is_short[packs.sample], packs.first[:-1])
        spread[how] = np.std(short / np.add.reduceat(packs.length, packs.first[:-1]))
    assert spread["even"] < 0.1 and spread["best_fit"] > 0.4


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (([5, 11], 10), "samples of 5 to 11 tokens cannot be packed: each must have 1 to 10"),
        (([0, 3], 10), "samples of 0 to 3 tokens cannot be packed"),
        (([5], 10, "first_fit"), "by best_fit, even, greedy, not by 'first_fit'"),
        (([5], 10, "even", True), 'only "greedy" cuts'),
    ],
    ids=["too_long", "empty", "unknown_way", "cut_where_nothing_is"],
)
def test_what_cannot_be_packed_is_said(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        pack(*wrong)
