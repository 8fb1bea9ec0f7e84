"""When a run has waited long enough: patience over evaluations, counted across resumes."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.run.standing import RunState

from .plans import make_plan
from .test_loop import WHOLE, named, run, steady

FIGURES = st.lists(
    st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=30
)


def judged(figures, better="lower", min_delta=0.0):
    """The state after each of them."""
    state, seen = RunState(), []
    for step, figure in enumerate(figures, 1):
        state.step = step
        best = state.judge(figure, better, min_delta)
        seen.append((best, state.bad_evaluations, state.best, state.best_step))
    return seen


@given(FIGURES, st.floats(0, 1e3))
def test_higher_is_lower_with_the_sign_turned(figures, min_delta):
    down = judged(figures, "lower", min_delta)
    up = judged([-f for f in figures], "higher", min_delta)
    assert [(b, n, s) for b, n, _, s in down] == [(b, n, s) for b, n, _, s in up]


@given(FIGURES, st.floats(0, 1e3))
def test_the_best_is_the_first_of_the_lowest_finite_figures(figures, min_delta):
    """Whatever min_delta says: that is about patience alone."""
    *_, (_, _, best, step) = [(False, 0, None, None), *judged(figures, min_delta=min_delta)]
    finite = [f for f in figures if math.isfinite(f)]
    assert best == min(finite, default=None)
    assert step == (figures.index(best) + 1 if finite else None)


@given(FIGURES, st.floats(0, 1e3))
def test_patience_counts_the_evaluations_since_progress_of_more_than_min_delta(figures, min_delta):
    """Progress adds up: many small steps that come to more than min_delta are progress."""
    reference, bad = None, 0
    for (_, counted, _, _), figure in zip(
        judged(figures, min_delta=min_delta), figures, strict=True
    ):
        if math.isfinite(figure) and (reference is None or reference - figure > min_delta):
            reference, bad = figure, 0
        else:
            bad += 1
        assert counted == bad


def test_figures_that_are_no_numbers_never_are_the_best_and_use_up_patience():
    seen = judged([math.nan, -math.inf, 1.0, math.nan, 0.5])
    assert [best for best, *_ in seen] == [False, False, True, False, True]
    assert [bad for _, bad, *_ in seen] == [1, 2, 0, 1, 0]


def stops(tmp_path, figures, *, epochs=20, patience=3, min_delta=0.0, every=None, **more):
    evaluate = (
        {"every_epochs": 1} if every is None else {"every_epochs": None, "every_steps": every}
    )
    plan = make_plan(
        batch=more.pop("batch", WHOLE), train={"epochs": epochs}, evaluate=evaluate,
        early_stop={"patience": patience, "min_delta": min_delta},
        optimizer={"lr": 1e-6, "weight_decay": 0.0},
    )  # fmt: skip
    task = steady(figures)
    if more.pop("higher", False):
        task = dataclasses.replace(task, better="higher")
    return run(plan, task, tmp_path, **more)


def test_a_higher_figure_may_be_the_better_one(tmp_path):
    seen = stops(tmp_path, [1.0, 2.0, 3.0, 2.5, 2.0, 2.9, 4.0], higher=True)
    assert (seen[-1].reason, seen[-1].step, seen[-1].best) == ("early_stop", 6, 3.0)


def test_the_same_figure_again_is_no_progress(tmp_path):
    """Even where min_delta is nothing."""
    seen = stops(tmp_path, [1.0, 1.0, 1.0, 1.0, 0.5])
    assert (seen[-1].reason, seen[-1].step) == ("early_stop", 4)


def test_small_steps_that_add_up_to_min_delta_keep_a_run_going(tmp_path):
    seen = stops(tmp_path, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], epochs=7, min_delta=0.25)
    assert seen[-1].reason == "finished"
    assert [e.bad_evaluations for e in named(seen, "evaluated")] == [0, 1, 2, 0, 1, 2, 0]


def test_patience_counts_evaluations_not_epochs(tmp_path):
    """Four evaluations in an epoch of four steps: the run ends within its first."""
    batch = {"micro_batch": 2, "accum_steps": 1, "global_batch": 2}
    seen = stops(tmp_path, [1.0, 2.0, 2.0, 2.0], every=1, batch=batch)
    assert (seen[-1].reason, seen[-1].step, seen[-1].epoch) == ("early_stop", 4, 1)
    rare = stops(tmp_path / "rare", [1.0, 2.0, 2.0, 2.0], every=8, batch=batch)
    assert (rare[-1].reason, rare[-1].step, rare[-1].epoch) == ("early_stop", 32, 8)


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_resume_in_the_middle_of_patience_stops_where_the_whole_run_does(tmp_path, cut):
    figures = [3.0, 1.0, 2.0, 1.5, math.inf, 2.0, 0.5]
    whole = stops(tmp_path / "whole", figures, patience=4)
    assert (whole[-1].reason, whole[-1].step) == ("early_stop", 6)
    parts = stops(tmp_path / "parts", figures, patience=4, max_steps=cut)
    done = len(named(parts, "evaluated"))
    rest = stops(tmp_path / "parts", figures[done:], patience=4, resume=True)
    assert (rest[-1].reason, rest[-1].step) == ("early_stop", 6)
    assert (rest[-1].best, rest[-1].best_step) == (1.0, 2)
    counted = [e.bad_evaluations for e in (*named(parts, "evaluated"), *named(rest, "evaluated"))]
    assert counted == [0, 0, 1, 2, 3, 4]


def test_a_run_that_stopped_early_goes_on_under_more_patience(tmp_path):
    stops(tmp_path, [1.0, 2.0, 2.0], patience=2)
    again = stops(tmp_path, [0.5], patience=9, epochs=5, resume=True)
    assert (again[-1].reason, again[-1].step, again[-1].best) == ("finished", 5, 0.5)


def test_the_last_evaluation_finishes_a_run_even_where_patience_ends_with_it(tmp_path):
    seen = stops(tmp_path, [1.0, 2.0, 2.0, 2.0], epochs=4)
    assert seen[-1].reason == "finished"
