"""Which samples an epoch holds: counted by sample over many epochs."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrec_train.data.tokens.mixture import Entry, Mixture

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def mixture(sizes, epochs=None, weights=None, left_out=()):
    """Entries one behind the other; sample numbers in left_out are not usable."""
    ends = np.cumsum(sizes).tolist()
    none = [None] * len(sizes)
    entries = [
        Entry(end - size, end, *how)
        for end, size, *how in zip(ends, sizes, epochs or none, weights or none, strict=True)
    ]
    usable = np.ones(ends[-1], bool)
    usable[list(left_out)] = False
    return Mixture(entries, usable)


def times_read(mixed, num_samples, epochs, seed=5):
    """[num_samples] how often each is read in these epochs."""
    orders = [mixed.order(seed, epoch) for epoch in epochs]
    return np.bincount(np.concatenate(orders), minlength=num_samples)


@given(sizes, st.integers(0, 2**40), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_every_sample_exactly_once_per_epoch(sizes, seed, epoch):
    assert sorted(mixture(sizes).order(seed, epoch).tolist()) == list(range(sum(sizes)))


def test_what_is_not_usable_is_in_no_epoch():
    mixed = mixture([4, 4], left_out=(0, 5, 6))
    assert all(sorted(mixed.order(1, epoch).tolist()) == [1, 2, 3, 4, 7] for epoch in range(5))
    assert times_read(mixture([4, 4], epochs=[0.5, 3], left_out=(0, 5, 6)), 8, range(2)).tolist() == [
        0, 1, 1, 1, 6, 0, 0, 6,
    ]  # fmt: skip


def test_half_an_epoch_takes_twice_as_many_epochs():
    mixed = mixture([101, 10], epochs=[0.5, 1])
    assert [mixed.counts(epoch) for epoch in range(4)] == [[51, 10], [50, 10]] * 2
    for start in (0, 2, 4):
        assert set(times_read(mixed, 111, (start, start + 1))[:101]) == {1}


@given(sizes, st.data())
@settings(max_examples=100, deadline=None)
def test_fractions_go_through_all_before_they_repeat(sizes, data):
    epochs = [data.draw(st.sampled_from([0.1, 0.29, 0.5, 1, 1.5, 2.25, 3])) for _ in sizes]
    mixed, ends = mixture(sizes, epochs=epochs), np.cumsum(sizes)
    until = data.draw(st.integers(1, 8))
    for times, rate in zip(
        np.split(times_read(mixed, ends[-1], range(until)), ends[:-1]), epochs, strict=True
    ):
        assert times.max() - times.min() <= 1
        exact = Fraction(str(rate)) * until * len(times)
        assert abs(int(times.sum()) - exact) <= Fraction(1, 2)


@pytest.mark.parametrize("rate, epochs", [(0.1, 10), (0.29, 100), (1 / 3, 3), (0.7, 10)], ids=str)
def test_a_fraction_has_read_everything_when_it_should(rate, epochs):
    assert set(times_read(mixture([30], epochs=[rate]), 30, range(epochs))) == {round(rate * epochs)}


@given(sizes, st.data())
@settings(max_examples=100, deadline=None)
def test_weights_are_shares_to_the_sample(sizes, data):
    weights = [data.draw(st.sampled_from([1, 1.5, 2, 3.7])) for _ in sizes]
    total, ends = sum(sizes), np.cumsum(sizes)
    if total * min(weights) / sum(weights) < 1:
        return  # test_what_cannot_be_mixed_is_said
    mixed = mixture(sizes, weights=weights)
    assert all(mixed.counts(epoch) == mixed.counts(0) for epoch in range(4))
    assert sum(mixed.counts(0)) == len(mixed.order(3, 0)) == total
    for count, weight in zip(mixed.counts(0), weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1
    parts = np.split(times_read(mixed, total, range(4)), ends[:-1])
    for times, count in zip(parts, mixed.counts(0), strict=True):
        assert times.sum() == 4 * count and times.max() - times.min() <= 1


def test_weights_of_one_to_three():
    assert mixture([100, 300], weights=[3, 1]).counts(7) == [300, 100]
    assert mixture([5, 5, 5], weights=[1, 1, 2]).counts(0) == [4, 4, 7]  # 3.75, 3.75, 7.5: two are missing
    assert mixture([5, 5], weights=[0.1, 0.3], left_out=(0, 9)).counts(0) == [2, 6]


def test_an_epoch_is_a_function_of_seed_and_epoch():
    made = [mixture([50, 30, 20], epochs=[0.3, 1, 2.5]) for _ in range(2)]
    forward = [made[0].order(1, epoch).tolist() for epoch in range(6)]
    assert forward == [made[1].order(1, epoch).tolist() for epoch in reversed(range(6))][::-1]
    assert len({tuple(order) for order in forward}) == 6
    assert forward[0] != made[0].order(2, 0).tolist()


@pytest.mark.parametrize("seeds, epochs", [(1, 400), (400, 1)], ids=["epochs", "seeds"])
def test_no_sample_is_likelier_to_keep_its_place(seeds, epochs):
    """A permutation keeps one place on average; one that is applied twice, two."""
    mixed, places = mixture([50]), np.arange(50)
    kept = [(mixed.order(s, e) == places).sum() for s in range(seeds) for e in range(epochs)]
    assert np.mean(kept) == pytest.approx(1, abs=0.2)  # four standard deviations


def test_entries_of_equal_size_are_not_in_the_same_order():
    parts = mixture([50, 50])
    first, second = (parts.passes(1, entry, 0, 50) for entry in (0, 1))
    assert (first != second - 50).any()


def test_an_epoch_may_hold_nothing():
    tiny = mixture([1], epochs=[0.2])
    assert [len(tiny.order(0, epoch)) for epoch in range(5)] == [0, 0, 1, 0, 0]
    assert tiny.order(0, 0).dtype == tiny.order(0, 2).dtype


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"weights": [1, None]}, "entry 2 of the mixture has no weight, and others have one"),
        ({"weights": [1, 1], "epochs": [None, 1]}, "entry 2 of the mixture has both a weight and epochs"),
        ({"weights": [0, 1]}, "weight of entry 1 of the mixture must be above 0, got 0"),
        ({"epochs": [1, -2]}, "epochs of entry 2 of the mixture must be above 0, got -2"),
        ({"epochs": [1, float("nan")]}, "must be above 0, got nan"),
        ({"weights": [float("inf"), 1]}, "must be above 0, got inf"),
        ({"weights": [1, 1000]}, "the weight of entry 1 of the mixture gives it none of 8 samples"),
        ({"left_out": range(4, 8)}, "entry 2 of the mixture has no usable sample"),
    ],
    ids=["one_weight", "both", "zero", "negative", "nan", "infinite", "too_light", "all_left_out"],
)
def test_what_cannot_be_mixed_is_said(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        mixture([4, 4], **wrong)


def test_no_entries_are_no_mixture():
    with pytest.raises(ValueError, match="no entries"):
        Mixture([], np.zeros(0, bool))
