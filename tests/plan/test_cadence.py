"""How often a run logs, evaluates and saves, and how much it keeps: the arithmetic."""

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotrain.plan import cadence
from autotrain.run.cadence import Cadence
from autotrain.schema import CheckpointSection, EvaluateSection
from autotrain.units import GIB

from .profiles import device, machine

SECONDS = st.floats(1e-4, 1e7)


# --- Young and Daly ------------------------------------------------------------------------


def simulated(interval: float, save: float, between: float, segments: int = 20_000) -> float:
    """Seconds that a second of work took, with interruptions at exponential times.

    An interruption undoes what was done since the last save, the save under way included.
    """
    draw, spent = random.Random(7), 0.0
    for _ in range(segments):
        while (until := draw.expovariate(1 / between)) < interval + save:
            spent += until
        spent += interval + save
    return spent / (segments * interval)


@pytest.mark.parametrize(("save", "between"), [(1.0, 10_000.0), (5.0, 500.0), (30.0, 100.0)])
def test_a_simulation_of_interruptions_loses_least_at_the_interval(save, between):
    best = cadence.best_interval(save, between)
    lost = {times: simulated(times * best, save, between) - 1 for times in (0.5, 1.0, 2.0)}
    assert lost[1.0] < lost[0.5]
    assert lost[1.0] < lost[2.0]
    for times, seconds in lost.items():
        expected = cadence.expected_share(times * best, save, between) - 1
        assert seconds == pytest.approx(expected, rel=0.05)


@given(SECONDS, SECONDS, st.floats(0.01, 100))
def test_no_other_interval_is_expected_to_lose_less(save, between, times):
    best = cadence.best_interval(save, between)
    assume((times * best + save) / between < 500)
    there = cadence.expected_share(times * best, save, between)
    assert cadence.expected_share(best, save, between) <= there * (1 + 1e-9)


@given(SECONDS, SECONDS)
def test_the_interval_is_dalys_series_and_youngs_where_saves_are_short(save, between):
    best = cadence.best_interval(save, between)
    if save < between / 2:
        assert best == pytest.approx(cadence.daly(save, between), rel=0.01)
    if save < between / 1e4:
        assert best == pytest.approx(cadence.young(save, between), rel=0.01)
    assert 0 < best <= between * (1 + 1e-12)


@given(SECONDS, SECONDS, st.floats(1, 100))
def test_costlier_saves_and_rarer_interruptions_never_shorten_the_interval(save, between, times):
    best = cadence.best_interval(save, between)
    assert cadence.best_interval(times * save, between) >= best * (1 - 1e-7)
    assert cadence.best_interval(save, times * between) >= best * (1 - 1e-7)


NUMBERS = st.floats(0, math.inf)


@given(NUMBERS, NUMBERS.filter(bool), st.floats(1, 100))
def test_any_save_and_any_interruptions_have_an_interval_that_never_shrinks(save, between, times):
    best = cadence.best_interval(save, between)
    assert 0 <= best <= between * (1 + 1e-12)
    assert cadence.best_interval(times * save, between) >= best * (1 - 1e-7)
    assert cadence.best_interval(save, times * between) >= best * (1 - 1e-7)
    assert cadence.steps_within(best, 1e-3) >= 1


def test_saves_at_the_ends_of_what_there_is():
    assert cadence.best_interval(0.0, 3600.0) == 0.0
    assert cadence.best_interval(math.inf, 3600.0) == 3600.0
    assert cadence.best_interval(1.0, math.inf) == math.inf
    assert cadence.best_interval(0.0, math.inf) == math.inf
    assert cadence.best_interval(5e-324, 2.0) > cadence.best_interval(5e-324, 1.0) > 0
    assert cadence.best_interval(1e300, 1e300) == pytest.approx(0.8414 * 1e300, rel=1e-4)


# --- machines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "battery", "kind"),
    [
        (("NVIDIA GeForce RTX 4060 Laptop GPU",), None, "laptop"),
        (("NVIDIA GeForce RTX 4090",), True, "laptop"),
        (("NVIDIA GeForce RTX 4090",), False, "workstation"),
        (("NVIDIA RTX A4000",), None, "workstation"),
        (("NVIDIA A100-SXM4-80GB",), None, "server"),
        (("Tesla T4",), False, "server"),
        (("AMD EPYC 7B13",), None, "server"),
        (("AMD Ryzen 9 7950X",), None, "workstation"),
        (("AMD Instinct MI300X",), None, "server"),
        (("Apple M3 Max",), None, "workstation"),
    ],
)
def test_a_machine_is_taken_for_what_its_battery_and_its_names_say(names, battery, kind):
    hardware = machine(*(device("cuda", name=name) for name in names), battery=battery)
    assert cadence.machine_kind(hardware) == kind


def test_a_profile_says_its_own_hours_or_a_word_for_them():
    assert cadence.interruption_hours(machine(interruption_hours=5)) == 5
    assert cadence.interruption_hours(machine(interruption_hours="spot")) == 2
    assert cadence.interruption_hours(machine(battery=True)) == 8
    assert cadence.interruption_hours(machine()) == 168


# --- saving --------------------------------------------------------------------------------


@given(st.integers(1, 10**7), st.integers(1, 10**5), st.integers(1, 1000))
def test_saves_are_no_further_apart_than_said(steps, per_epoch, most):
    pace = cadence.save_pace(steps, per_epoch, most)
    apart = pace.every_steps or pace.every_epochs * per_epoch
    assert apart <= steps
    assert pace.every_epochs is None or pace.every_epochs <= most
    if pace.every_steps:
        # Equal parts of an epoch: one more step would not need fewer saves.
        saves = math.ceil(per_epoch / steps)
        assert math.ceil(per_epoch / pace.every_steps) <= saves


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 100))
def test_a_longer_interval_never_saves_more_often(one, other, per_epoch, most):
    def apart(steps):
        pace = cadence.save_pace(steps, per_epoch, most)
        return pace.every_steps or pace.every_epochs * per_epoch

    assert apart(min(one, other)) <= apart(max(one, other))


@given(st.floats(1e-4, 1e3), st.floats(1, 1e5))
def test_no_more_work_fits_between_saves_than_said(seconds, most):
    steps = cadence.steps_within(most, seconds)
    assert steps == 1 or steps * seconds <= most * (1 + 1e-9)


@given(st.floats(0, 1e13), st.floats(0, 1e15), st.integers(1, 50))
def test_what_is_kept_fits_the_disk_with_room_for_the_others(size, free, wanted):
    kept = cadence.keep(size, free, wanted)
    assert 1 <= kept <= wanted
    if kept > 1:
        assert cadence.disk_bytes(size, kept) <= free - GIB + 1


# --- evaluating and logging ----------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 10**5), st.floats(1e-4, 100), st.floats(0, 1e5))
def test_evaluations_take_a_tenth_of_the_time_unless_there_would_be_under_ten(
    epochs, per_epoch, step, cost
):
    pace = cadence.evaluation_pace(epochs, per_epoch, step, cost)
    made = cadence.occasions(epochs, per_epoch, *pace)
    assert (pace.every_epochs is None) != (pace.every_steps is None)
    training = epochs * per_epoch * step
    # The last step is evaluated whatever the cadence: one more than a tenth pays for.
    assert made * cost <= 0.1 * training + cost * (1 + 1e-6) or made <= 20
    assert made >= min(epochs, 10)
    if pace.every_steps:
        assert pace.every_steps < per_epoch
        assert pace.every_steps * step >= 30 * (1 - 1e-9) or cost > 0


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "step", "cost", "pace"),
    [
        (60, 50, 0.5, 1.0, (1, None)),  # 25 s an epoch, a second to evaluate
        (60, 50, 0.5, 10.0, (4, None)),  # 10 s: every 100 s, which is four epochs
        (60, 50, 0.5, 1000.0, (6, None)),  # dearer than training: ten in the run
        (2, 1000, 1.0, 1.0, (None, 200)),  # two epochs: five points of each
        (2, 1000, 1.0, 40.0, (None, 400)),  # no more often than a tenth of the time pays for
        (2, 100, 1.0, 1.0, (1, None)),  # 100 s: too short to cut
        (20, 10_000, 1.0, 30.0, (None, 3334)),  # an epoch of 2.8 hours: every hour
    ],
)
def test_evaluations_follow_the_length_of_an_epoch_and_what_they_cost(
    epochs, per_epoch, step, cost, pace
):
    assert cadence.evaluation_pace(epochs, per_epoch, step, cost) == pace


@given(st.floats(1e-6, 1e5), st.integers(1, 10**7))
def test_log_points_are_a_second_apart_and_at_least_fifty_in_a_run(seconds, total):
    every = cadence.log_every(seconds, total)
    assert 1 <= every <= 100
    assert total // every >= min(50, total)
    assert every == 1 or every * seconds <= 1.5


@given(
    st.integers(1, 60), st.integers(1, 40), st.none() | st.integers(1, 70),
    st.none() | st.integers(1, 300),
)  # fmt: skip
def test_occasions_are_as_many_as_the_run_will_take(epochs, per_epoch, by_epochs, by_steps):
    total = epochs * per_epoch
    save = CheckpointSection(every_epochs=by_epochs, every_steps=by_steps, keep=1)
    evaluate = EvaluateSection(every_epochs=1)
    due = Cadence(per_epoch, total, 1, evaluate, save)
    said = cadence.occasions(epochs, per_epoch, by_epochs, by_steps)
    assert said == sum(due.saves(step) for step in range(1, total + 1))
