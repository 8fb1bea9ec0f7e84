"""How long a run waits for progress: by how sharp its figures are, and how often they come."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import patience

from .profiles import goal, model, planned, reason, recipe

COUNTS = st.integers(0, 10**7)
RUNS = st.integers(1, 10**5)
BETWEEN = st.floats(1, 1e6)


@given(COUNTS, COUNTS, RUNS, BETWEEN)
def test_more_samples_never_make_patience_rise(one, other, evaluations, between):
    fewer, more = sorted((one, other))
    longer = patience.patience(fewer, evaluations, between)
    assert patience.patience(more, evaluations, between) <= longer


@given(COUNTS, RUNS, BETWEEN, BETWEEN)
def test_evaluations_further_apart_never_make_patience_rise(count, evaluations, one, other):
    closer, further = sorted((one, other))
    longer = patience.patience(count, evaluations, closer)
    assert patience.patience(count, evaluations, further) <= longer


@given(COUNTS, RUNS, BETWEEN)
def test_patience_is_from_a_tenth_to_a_half_of_the_run(count, evaluations, between):
    wait = patience.patience(count, evaluations, between)
    assert math.floor(0.1 * evaluations) <= wait <= math.ceil(0.5 * evaluations)
    assert wait >= min(3, math.ceil(0.5 * evaluations))


@given(COUNTS, st.integers(1, 10**4), st.integers(2, 20))
def test_the_same_run_waits_for_as_many_steps_however_often_it_evaluates(count, epochs, times):
    """But for rounding, and at least 3 to 10 evaluations."""
    seldom = patience.by_noise(count, epochs)
    often = patience.by_noise(count, epochs * times)
    assert seldom - 1 <= often / times <= seldom


@pytest.mark.parametrize(("between", "least"), [(1, 10), (50, 10), (100, 5), (167, 3), (10_000, 3)])
def test_some_steps_are_waited_for_in_any_case(between, least):
    assert patience.least(1000, between) == least


@given(st.integers(0, 10**4))
def test_a_plateau_lowers_its_rate_before_the_run_ends(wait):
    falls = patience.plateau_patience(wait)
    assert 3 <= falls <= 10
    assert patience.after_falls(falls) > 2 * falls + 1


# --- in a plan -----------------------------------------------------------------------------


def each_epoch(*recipes, epochs=100, **user):
    return goal(*recipes, train__epochs=epochs, evaluate__every_epochs=1, **user)


def wait(wish=None, **samples):
    return planned(of=model(**samples), wish=wish or each_epoch()).early_stop.patience


def test_a_small_validation_set_makes_a_plan_patient():
    assert [wait(train=5000, valid=n) for n in (20, 200, 50_000)] == [50, 25, 11]


def test_the_reason_says_how_uncertain_a_figure_is():
    plan = planned(of=model(train=5000, valid=400), wish=each_epoch())
    why = reason(plan, "early_stop.patience")
    assert plan.early_stop.patience == 20
    assert "from 400 validation samples is off by about 5 % by chance" in why.formula
    assert "20 of the run's 100 evaluations" in why.formula


def test_patience_counts_evaluations_by_steps_too():
    by_steps = goal(train__epochs=100, batch__global_batch=50, evaluate__every_steps=25)
    assert wait(by_steps, train=5000, valid=400) == 80


def test_a_plateau_gets_two_chances_before_the_run_may_end():
    own = each_epoch(schedule__name="plateau", epochs=30)
    made = planned(of=model(train=50_000, valid=50_000), wish=own)
    assert made.schedule.patience == 3
    assert made.early_stop.patience == 9
    assert "twice, before the run may end" in reason(made, "early_stop.patience").formula
    own = each_epoch(schedule__name="plateau", schedule__patience=6, epochs=30)
    assert wait(own, train=50_000, valid=50_000) == 15


def test_restarts_are_waited_out():
    own = each_epoch(recipe(schedule__name="cosine_restarts", schedule__period_epochs=40))
    assert wait(own, train=50_000, valid=50_000) == 40


def test_patience_is_never_longer_than_the_run():
    own = each_epoch(schedule__name="plateau", epochs=4)
    assert wait(own, train=5000, valid=20) == 4


def test_patience_that_is_set_stays():
    assert wait(goal(early_stop__patience=3, train__epochs=100), valid=20) == 3
    assert wait(goal(recipe(early_stop__patience=4)), valid=20) == 4


def test_patience_follows_how_often_the_plan_evaluates():
    seldom = each_epoch().model_copy(
        update={"user": {"train.epochs": 100, "evaluate.every_epochs": 5}}
    )
    assert wait(seldom, train=5000, valid=200) == 5
    assert wait(train=5000, valid=200) == 25
