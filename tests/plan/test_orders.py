"""In which order samples of many lengths come, and what a micro-batch takes at any length."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import lengths, orders
from autotrain.run.loading import order as runs

from .test_lengths import profile

VALUES = st.lists(st.integers(1, 3000), min_size=1, max_size=200)


def test_it_is_the_order_that_a_run_makes():
    assert orders.POOL_STEPS == runs.POOL_WINDOWS


@given(VALUES, st.integers(1, 8), st.integers(1, 4))
def test_micro_batches_are_as_long_as_in_a_run(values, micro, accum):
    """As many as one pool holds, all of one size: each one's longest sample, by a run's order."""
    count = len(values) // (micro * accum) * micro * accum
    if count == 0:
        return
    values = values[:count]
    made = runs.Order(count, micro * accum, micro, 7, lengths=torch.tensor(values).double())
    longest = [
        max(values[sample] for sample in part)
        for step in range(made.steps_per_epoch)
        for part in made.window(step)
    ]
    seen = orders.trained(profile(values), count, micro, micro * accum)
    mean = math.fsum(longest) / len(longest)
    assert orders.mean_length(seen) == pytest.approx(mean)
    assert [piece.length for piece in seen] == sorted(piece.length for piece in seen)
    wasted = 1 - math.fsum(values) / count / mean
    found = orders.padding(profile(values), count, micro, micro * accum)
    assert found == pytest.approx(max(wasted, 0.0), abs=1e-9)


def test_where_nothing_is_known_of_lengths_all_are_the_longest():
    assert orders.trained(None, 100, 8, 16) == (lengths.Piece(1, 8, 0.0),)
    for in_order in (True, False):
        assert orders.evaluated(None, 100, 8, in_order=in_order) == (lengths.Piece(1, 8, 0.0),)


@given(VALUES, st.integers(1, 8))
def test_an_evaluation_in_order_of_length_is_as_long_as_in_a_run(values, micro):
    count = len(values) // micro * micro
    if count == 0:
        return
    values = values[:count]
    batches = runs.in_micro_batches(count, micro, torch.tensor(values).double())
    longest = [max(values[sample] for sample in part) for part in batches]
    assert sorted(sample for part in batches for sample in part) == [*range(count)]
    assert longest == sorted(longest, reverse=True)
    seen = orders.evaluated(profile(values), count, micro, in_order=True)
    assert orders.mean_length(seen) == pytest.approx(math.fsum(longest) / len(longest))


def test_in_order_of_length_an_evaluation_pads_little():
    known = profile(range(1, 101))
    in_order, as_they_lie = (
        orders.mean_length(orders.evaluated(known, 100, 10, in_order=each))
        for each in (True, False)
    )
    assert in_order == 55
    assert 90 < as_they_lie < 92


@given(
    st.lists(st.integers(1, 3000), min_size=3, max_size=6, unique=True),
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e-3), st.floats(0, 1),
)  # fmt: skip
def test_seconds_that_grow_with_a_length_and_its_square_are_met(at, fixed, each, square, where):
    def seconds(length):
        return fixed + each * length + square * length**2

    length = min(at) + where * (max(at) - min(at))
    known = {each: seconds(each) for each in at}
    found = lengths.along(known, known, length)
    assert found == pytest.approx(seconds(length), rel=1e-6, abs=1e-9)


def test_between_two_lengths_it_takes_no_less_and_no_more_than_at_both():
    known = {100.0: 1.0, 200.0: 1.1, 300.0: 9.0}
    assert 1.0 <= lengths.along(known, known, 150.0) <= 1.1
    assert lengths.along(known, known, 50.0) >= 0.5
    assert lengths.along(known, known, 50.0) <= 1.0
    assert lengths.along(known, known, 200.0) == pytest.approx(1.1)
    assert lengths.along(known, known, 400.0) >= 9.0
    line = {100.0: 1.0, 300.0: 3.0}
    assert lengths.along(line, line, 200.0) == pytest.approx(2.0)


@given(
    st.dictionaries(st.integers(1, 3000), st.floats(0, 1e9), min_size=2, max_size=6),
    st.floats(0, 4000), st.data(),
)  # fmt: skip
def test_what_takes_less_at_a_known_length_takes_no_more_at_any(done, length, data):
    """Products that get faster shorten a step where they fill it, and another's moved bytes do not:
    a parabola through the seconds themselves would bend up between."""
    slow = {each: data.draw(st.floats(0, 1e3)) for each in done}
    fast = {each: data.draw(st.floats(0, seconds)) for each, seconds in slow.items()}
    assert lengths.along(fast, done, length) <= lengths.along(slow, done, length) * (1 + 1e-9)
