"""The learning rate by step."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.errors import UsageError
from autotrain.run.schedule import Schedule
from autotrain.schema import ScheduleSection

KEYS = {"factor": 0.5, "patience": 2, "period_steps": 10, "min_lr": 1e-5}
NAMES = ["constant", "cosine", "cosine_restarts", "plateau", "exponential", "inverse_sqrt"]


def schedule(name, warmup=0, total=100, lr=1e-2, better="lower", **keys):
    section = ScheduleSection(name=name, warmup_steps=warmup, **{**KEYS, **keys})
    return Schedule(section, lr, total, better)


@given(
    st.sampled_from(NAMES),
    st.integers(0, 50),
    st.integers(1, 200),
    st.floats(1e-6, 1.0),
    st.integers(0, 400),
)
def test_the_rate_stays_between_its_floor_and_its_peak(name, warmup, total, lr, step):
    """Whatever the schedule, at any step, beyond the planned end too."""
    rate = schedule(name, warmup, total, lr).at(step)
    assert 0 < rate <= lr * (1 + 1e-12)
    if step >= warmup and name != "constant":
        assert rate >= min(1e-5, lr) * (1 - 1e-12)


@given(st.sampled_from(NAMES), st.integers(1, 50))
def test_warm_up_rises_in_equal_steps_to_the_peak(name, warmup):
    """Step n of the warm-up runs at n/warmup of the peak."""
    made = schedule(name, warmup)
    rates = [made.at(step) for step in range(warmup)]
    assert rates == pytest.approx([1e-2 * (n + 1) / warmup for n in range(warmup)])
    assert made.at(warmup) == pytest.approx(
        1e-2 * (math.sqrt(warmup / warmup) if name == "inverse_sqrt" else 1)
    )


@given(st.integers(0, 20), st.integers(21, 200))
def test_cosine_falls_all_the_way_to_its_floor(warmup, total):
    """Never rising after the warm-up, at min_lr when the steps are done."""
    made = schedule("cosine", warmup, total)
    rates = [made.at(step) for step in range(warmup, total + 1)]
    assert all(a >= b for a, b in pairwise(rates))
    assert rates[-1] == pytest.approx(1e-5)


def test_restarts_begin_each_period_at_the_peak():
    """And repeat themselves exactly."""
    made = schedule("cosine_restarts", warmup=5)
    assert [made.at(s) for s in range(5, 15)] == [made.at(s) for s in range(15, 25)]
    assert made.at(5) == 1e-2


def test_exponential_halves_once_a_period():
    """FastSpeech2: 4000 steps of warm-up, then half every 50 000 steps."""
    made = schedule("exponential", 4000, 200_000, 1e-3, factor=0.5, period_steps=50_000, min_lr=0)
    assert made.at(54_000) == pytest.approx(5e-4)
    assert made.at(29_000) == pytest.approx(1e-3 / math.sqrt(2))


def test_inverse_sqrt_is_a_quarter_after_sixteen_warm_ups():
    """lr x sqrt(warmup / step), Vaswani et al. 2017."""
    assert schedule("inverse_sqrt", 100, min_lr=0).at(1600) == pytest.approx(1e-2 / 4)


@given(
    st.sampled_from(["lower", "higher"]),
    st.integers(0, 4),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=40),
)
def test_plateau_does_what_torch_does(better, patience, figures):
    """ReduceLROnPlateau with its defaults is the oracle."""
    made = schedule("plateau", better=better, patience=patience, min_lr=0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min" if better == "lower" else "max", factor=0.5, patience=patience, eps=0.0
    )
    for figure in figures:
        made.observe(figure)
        theirs.step(figure)
        assert made.at(0) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_plateau_goes_on_from_its_state():
    """What a checkpoint keeps is enough."""
    one, two = schedule("plateau"), schedule("plateau")
    for figure in (1.0, 2.0, 2.0):
        one.observe(figure)
    two.load(one.state())
    for made in (one, two):
        made.observe(3.0)
    assert one.at(0) == two.at(0) == 5e-3


def test_every_missing_key_is_named():
    """All faults at once."""
    with pytest.raises(UsageError) as caught:
        schedule("exponential", factor=None, period_steps=None)
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "schedule.factor",
        "schedule.period_steps",
    ]
