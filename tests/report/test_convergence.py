"""What is said of the way that a run's figure went: it must fit runs made to go that way."""

import random
from dataclasses import replace

import pytest
from plans import a_plan, evaluated, started

from autotrain.report.convergence import convergence
from autotrain.report.result import collect


def way(values, better="lower", seed=None, noise=0.0):
    """What is said of a run of an epoch a step that went through these values of its figure."""
    draw = random.Random(seed)
    begun = replace(started(epochs=len(values), per_epoch=1), monitor="loss", better=better)
    events = [begun]
    for step, value in enumerate(values, start=1):
        events.append(evaluated(step, value + noise * draw.gauss(0, 1), best=False))
    return convergence(collect(events, a_plan()))


def falling(rate, count, floor=0.1):
    return [floor + (1 - floor) * rate**n for n in range(count)]


def test_when_half_and_nine_tenths_of_the_gain_were_made():
    found = way(falling(0.5, 20))
    assert (found.half_epoch, found.most_epoch) == (2, 5)
    assert found.gained == pytest.approx(0.9, rel=1e-3)
    assert found.text == "half of the gain by epoch 2, 90 % by epoch 5"


def test_scatter_alone_is_no_gain():
    told = [way([0.69] * 24, seed=seed, noise=0.002) for seed in range(100)]
    assert told.count(None) >= 98


def test_a_figure_that_is_to_rise_is_turned_round():
    fell, rose = falling(0.5, 20), [1 - value for value in falling(0.5, 20)]
    assert way(rose, better="higher").most_epoch == way(fell).most_epoch


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.5, 0.2]])
def test_of_few_evaluations_nothing_is_said(values):
    assert way(values) is None


def test_evaluations_that_are_not_finite_are_left_out():
    found = way([*falling(0.5, 10), float("nan"), *falling(0.5, 10)[-5:]])
    assert found.half_epoch == 2
