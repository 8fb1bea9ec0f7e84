"""Rounds of the same steps: their middle, and how far another measurement may lie from it."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.bench.spread import LEAST, known, quantile, spread

seconds = st.floats(1e-6, 1e3)
sittings = st.lists(st.lists(seconds, min_size=1, max_size=9), min_size=1, max_size=4)


def test_nine_of_ten_rounds_lie_within_and_the_median_is_the_middle():
    found = spread([[*range(1, 101)]])
    assert found.middle == 50.5
    assert (found.low, found.high) == (pytest.approx(5.95), pytest.approx(95.05))
    assert (found.rounds, found.processes) == (100, 1)


def test_rounds_that_are_all_alike_have_the_doubt_of_a_quiet_machine():
    found = spread([[2.0] * 20])
    assert (found.low, found.high) == (2 * (1 - LEAST), 2 * (1 + LEAST))


def test_a_process_that_is_slower_as_a_whole_widens_the_spread():
    """Of 3 x 50 rounds its own are few enough to lie outside of nine of ten."""
    alike = [1.0, 1.001] * 50
    found = spread([alike, alike, [1.2] * 5])
    assert found.high > 1.2
    assert spread([alike, alike]).high < 1.04


def test_processes_that_differ_say_how_far_others_may_lie_off():
    """As Student's t for three has it: exp(4.30 x s x sqrt(2 / 3))."""
    found = spread([[1.0], [1.1], [1.21]])
    factor = math.exp(4.30 * math.log(1.1) * math.sqrt(2 / 3))
    assert (found.low, found.high) == (pytest.approx(1.1 / factor), pytest.approx(1.1 * factor))
    assert spread([[1.0], [1.1]]).high > 1.5
    assert spread([[1.0, 1.1]]).high < 1.1


@pytest.mark.parametrize("drift", [0.0, 0.05, 0.2, 0.6])
def test_another_call_lies_within_about_as_often_as_is_stated(drift):
    """Processes that differ by so much, three rounds in each of three."""
    chance = random.Random(1)

    def call():
        return spread(
            [[chance.lognormvariate(at, 0.05) for _ in range(3)]
             for at in (chance.gauss(0, drift) for _ in range(3))]
        )  # fmt: skip

    pairs = [(call(), call()) for _ in range(1000)]
    within = sum(one.low <= other.middle <= one.high for one, other in pairs)
    assert within >= 930


def test_one_hiccup_among_many_rounds_changes_nothing():
    found = spread([[1.0] * 40 + [9.0]])
    assert (found.middle, found.high) == (1.0, 1 + LEAST)


@given(sittings)
def test_the_middle_and_every_process_lie_within(rounds):
    found = spread(rounds)
    assert found.low <= found.middle <= found.high
    for process in rounds:
        assert found.low <= quantile(sorted(process), 0.5) * 1.000001
        assert found.high >= quantile(sorted(process), 0.5) * 0.999999


@given(st.integers(0, 1000))
def test_two_measurements_of_one_machine_agree(seed):
    """Rounds as a shared machine gives them: some scatter, now and then a much longer one."""
    chance = random.Random(seed)

    def round_():
        return chance.gauss(1.0, 0.05) + (chance.random() < 0.1) * chance.random()

    one, other = (spread([[round_() for _ in range(9)] for _ in range(3)]) for _ in range(2))
    assert one.agrees(other)
    assert not one.agrees(spread([[3.0] * 9]))


def test_beside_other_programs_it_reaches_from_none_of_them_to_twice_as_many():
    """Half of a core's time: alone a step takes half as long, beside twice as many 1.5 times."""
    found = spread([[1.0] * 9]).beside(0.5)
    assert (found.low, found.middle, found.high) == (0.5, 1.0, 1.5)
    assert found.beside(None) == found
    wide = spread([[0.1, 1.0, 9.0]])
    assert wide.beside(0.2) == wide


def test_a_spread_goes_around_another_middle():
    low, middle, high = spread([[1.0, 2.0, 3.0]]).of(20.0)
    assert (low, middle, high) == (pytest.approx(11.0), 20.0, pytest.approx(29.0))


def test_a_median_is_known_when_more_rounds_would_hardly_move_it():
    assert not known([1.0] * 3)
    assert known([1.0] * 8)
    assert not known([1.0, 1.1] * 10)
    assert known([1.0, 1.03] * 3000 + [5.0] * 10) == known([1.0, 1.03] * 3000)
