"""What is said of the way that a run's figure went: it must fit runs made to go that way."""

import random
from dataclasses import replace

import pytest
from plans import a_plan, evaluated, started

from autotrain.report.convergence import convergence
from autotrain.report.result import collect


def way(values, better="lower", seed=None, noise=0.0):
    """The verdict on a run of an epoch a step that went through these values of its figure."""
    draw = random.Random(seed)
    begun = replace(started(epochs=len(values), per_epoch=1), monitor="loss", better=better)
    events = [begun]
    for step, value in enumerate(values, start=1):
        events.append(evaluated(step, value + noise * draw.gauss(0, 1), best=False))
    return convergence(collect(events, a_plan()))


def falling(rate, count, floor=0.1):
    return [floor + (1 - floor) * rate**n for n in range(count)]


def test_a_curve_that_flattened_has_converged_and_its_halves_are_named():
    found = way(falling(0.5, 20))
    assert found.verdict == "converged"
    assert (found.half_epoch, found.most_epoch) == (2, 5)
    assert found.gained == pytest.approx(0.9, rel=1e-3)
    assert "half of the gain by epoch 2, 90 % by epoch 5" in found.text


def test_a_straight_fall_is_still_going_on():
    found = way([1 - 0.04 * n for n in range(20)])
    assert found.verdict == "still improving"
    assert found.late_share == pytest.approx(5 / 19)
    assert "more epochs would help" in found.text


def test_a_rise_at_the_end_is_past_its_best():
    values = [*falling(0.5, 8), *(0.11 + 0.03 * n for n in range(12))]
    found = way(values)
    assert found.verdict == "past its best"
    assert "of the gain was lost again" in found.text


def test_scatter_alone_is_nothing_learned():
    told = [way([0.69] * 24, seed=seed, noise=0.002).verdict for seed in range(100)]
    assert told.count("learned nothing") >= 98


def test_scatter_on_a_flat_end_is_not_taken_for_a_trend():
    """Of honest runs that have flattened, with noise, one in fifteen may be told to go on."""
    told = [way(falling(0.6, 30), seed=seed, noise=0.1).verdict for seed in range(60)]
    assert told.count("still improving") <= 4


def test_a_figure_that_is_to_rise_is_turned_round():
    assert way([1 - value for value in falling(0.5, 20)], better="higher").verdict == "converged"


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.5, 0.2]])
def test_of_few_evaluations_nothing_is_said(values):
    assert way(values) is None


def test_evaluations_that_are_not_finite_are_left_out():
    found = way([*falling(0.5, 10), float("nan"), *falling(0.5, 10)[-5:]])
    assert found.verdict == "converged"
