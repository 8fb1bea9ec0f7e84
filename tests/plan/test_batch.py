"""How a global batch is chosen and cut."""

import re

from hypothesis import given
from hypothesis import strategies as st

from autotrain.errors import DoesNotFitError
from autotrain.plan import batch
from autotrain.units import MIB

from .profiles import device, goal, machine, planned, reason

SHARES = st.integers(1, 5000)


@given(SHARES, SHARES)
def test_the_cut_covers_the_batch_wanted_and_fits(share, fit):
    micro, accum = batch.cut(share, fit)
    assert micro <= fit
    assert micro * accum >= share
    # Never a whole micro-batch too many, nor more than one sample too many in each.
    assert micro * (accum - 1) < share
    assert micro * accum - share < accum


@given(SHARES, SHARES)
def test_a_cut_that_fits_well_is_exact(share, fit):
    fit = min(share, fit)
    divisor = batch.exact_cut(share, fit)
    assert share % divisor == 0
    assert divisor <= fit
    assert all(share % size for size in range(divisor + 1, fit + 1))
    micro, accum = batch.cut(share, fit)
    if 2 * divisor >= fit:
        assert (micro, accum) == (divisor, share // divisor)


@given(SHARES, SHARES, SHARES)
def test_more_room_never_cuts_finer(share, one, other):
    assert batch.cut(share, max(one, other))[0] >= batch.cut(share, min(one, other))[0]


def test_an_awkward_batch_is_cut_evenly_rather_than_to_pieces():
    assert batch.cut(97, 50) == (49, 2)
    assert batch.cut(32, 12) == (8, 4)
    assert batch.cut(10, 7) == (5, 2)
    assert batch.cut(16, 16) == (16, 1)


@given(st.integers(1, 10**9))
def test_the_default_batch_is_a_power_of_two_near_the_root_of_the_data(samples):
    size = batch.default_global_batch(samples)
    assert min(8, samples) <= size <= min(256, samples)
    assert size & (size - 1) == 0 or size == samples
    if 64 <= samples <= 2**16:
        assert samples**0.5 / 1.5 < size < samples**0.5 * 1.5


@given(SHARES, SHARES)
def test_the_origins_accumulation_falls_short_where_it_does_not_divide(target, micro):
    steps = batch.floor_accumulation_rule(target, micro)
    assert steps >= 1
    if target % micro and target > micro:
        assert steps * micro < target


def test_a_fixed_batch_that_cuts_badly_says_which_would_cut_well():
    """274 is twice a prime: where 100 fit, it is cut into twos."""
    few = next(
        plan
        for free in range(200, 4000, 20)
        if (plan := fitting(274, free)) is not None and 60 < fits(plan) < 137
    )
    assert (few.batch.micro_batch, few.batch.accum_steps) == (2, 137)
    why = reason(few, "batch.micro_batch").formula
    micro, accum = batch.cut(274, fits(few))
    assert f"274 cuts evenly into no more than 2 at once, {micro * accum} would into" in why
    assert f"--set batch.global_batch={micro * accum};" in why
    assert "cuts evenly" not in reason(fitting(256, 4000), "batch.micro_batch").formula


def fitting(total, free):
    try:
        return planned(machine(device("cuda", free * MIB)), wish=goal(batch__global_batch=total))
    except DoesNotFitError:
        return None


def fits(plan):
    found = re.search(r"([\d,]+) would fit", reason(plan, "batch.micro_batch").formula)
    return int(found[1].replace(",", "")) if found else 0
