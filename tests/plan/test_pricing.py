"""Seconds of a step's operators from timings of others like them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan.pricing import OVERHEAD, Prices, prices
from autotrain.schema import Timing, Work

TIMINGS = (
    Timing("elementwise", "fp32", 1, 0, 1e3, (), 1e-6),
    Timing("elementwise", "fp32", 1, 0, 1e6, (), 1e-4),
    Timing("elementwise", "fp32", 4, 0, 1e3, (), 1e-6),
    Timing("elementwise", "fp32", 4, 0, 1e6, (), 4e-5),
    Timing("copy", "fp32", 1, 0, 1e6, (), 1e-4),
    Timing("copy", "fp32", 4, 0, 1e6, (), 4e-5),
    Timing("matmul", "fp32", 1, 2 * 64**3, 3 * 4 * 64**2, (1, 64, 64, 64), 2 * 64**3 / 1e10),
    Timing("matmul", "fp32", 1, 2 * 512**3, 3 * 4 * 512**2, (1, 512, 512, 512), 2 * 512**3 / 1e11),
    Timing("matmul", "fp32", 4, 2 * 512**3, 3 * 4 * 512**2, (1, 512, 512, 512), 2 * 512**3 / 4e11),
    Timing(OVERHEAD, "", 1, 0, 0, (), 2e-6),
    Timing(OVERHEAD, "", 4, 0, 0, (), 2e-6),
)


def elementwise(size, calls=1):
    return Work("elementwise", "fp32", calls, 0.0, size)


def matmul(side, calls=1):
    return Work("matmul", "fp32", calls, 2.0 * side**3, 12.0 * side**2, (1, side, side, side))


def test_a_size_that_was_timed_costs_what_it_took_and_the_asking():
    assert Prices(TIMINGS).seconds([elementwise(1e6)], 1) == pytest.approx(1e-4 + 2e-6)


def test_between_two_sizes_time_lies_on_the_line():
    middle = (1e3 + 1e6) / 2
    assert Prices(TIMINGS).one(elementwise(middle), 1) == pytest.approx((1e-6 + 1e-4) / 2)


@pytest.mark.parametrize(("size", "seconds"), [(1e7, 1e-3), (1e2, 1e-7)])
def test_beyond_them_the_nearest_rate_holds(size, seconds):
    assert Prices(TIMINGS).one(elementwise(size), 1) == pytest.approx(seconds)


def test_a_product_takes_the_rate_of_the_one_like_it():
    known = Prices(TIMINGS)
    assert known.one(matmul(512), 1) == pytest.approx(2 * 512**3 / 1e11, rel=1e-3)
    between = known.one(matmul(181), 1) / (2 * 181**3)
    assert 1 / 1e11 < between < 1 / 1e10


def test_a_product_never_beats_moving_its_bytes():
    thin = Work("matmul", "fp32", 1, 2.0 * 512, 1e8, (1, 512, 1, 1))
    assert Prices(TIMINGS).one(thin, 1) == pytest.approx(1e-2)


def test_what_works_on_planes_goes_by_its_shape_and_bytes():
    slow = Timing("batch_norm", "fp32", 1, 0, 1e6, (8, 512, 4), 1e-3)
    fast = Timing("batch_norm", "fp32", 1, 0, 1e6, (8, 16, 1024), 1e-4)
    known = Prices((slow, fast))
    flat = Work("batch_norm", "fp32", 1, 0.0, 2e6, (8, 512, 4))
    assert known.one(flat, 1) == pytest.approx(2e-3, rel=1e-3)
    assert known.one(flat._replace(shape=(8, 16, 1024)), 1) == pytest.approx(2e-4, rel=1e-3)


def test_calls_multiply_and_a_view_costs_its_asking_alone():
    known = Prices(TIMINGS)
    ten = known.seconds([elementwise(1e6, calls=10)], 1)
    assert ten == pytest.approx(10 * known.seconds([elementwise(1e6)], 1))
    assert known.seconds([Work("view", "", 3, 0.0, 0.0)], 1) == pytest.approx(6e-6)


def test_threads_between_those_timed_share_what_is_shared():
    known = Prices(TIMINGS)
    one, two, four = (known.seconds([elementwise(1e6)], n) for n in (1, 2, 4))
    assert four < two < one
    # 1e-4 = rest + shared, 4e-5 = rest + shared / 4
    shared = (1e-4 - 4e-5) / (1 - 1 / 4)
    assert two == pytest.approx(1e-4 - shared / 2 + 2e-6)


@pytest.mark.parametrize("many", [8, 64, 1000])
def test_threads_that_gained_more_than_their_number_take_some_time_all_the_same(many):
    """With a second core came a second cache; a 64th brings none that helps so much."""
    own = [Timing("elementwise", "fp32", n, 0, 1e6, (), t) for n, t in ((1, 1e-3), (2, 4.5e-4))]
    known = Prices(own)
    assert known.seconds([elementwise(1e6)], many) == pytest.approx(4.5e-4 * 2 / many)


def test_more_threads_than_timed_never_speed_up_the_asking():
    alone = tuple(t for t in TIMINGS if t.threads == 1)
    known = Prices(alone)
    views = [Work("view", "", 100, 0.0, 0.0)]
    assert known.seconds(views, 8) == known.seconds(views, 1)
    faster = known.seconds([elementwise(1e6)], 2) / known.seconds([elementwise(1e6)], 1)
    assert 0.5 < faster < 0.65


def test_a_kind_or_dtype_that_was_not_timed_has_a_stand_in():
    known = Prices(TIMINGS)
    ours = Work("softmax", "bf16", 1, 0.0, 1e6)
    assert known.one(ours, 1) == known.one(elementwise(1e6), 1)


def test_the_same_timings_are_put_in_order_once():
    assert prices(TIMINGS) is prices(TIMINGS)
    assert prices(tuple(TIMINGS[:5])) is not prices(TIMINGS)


@given(st.floats(1.0, 1e12), st.floats(1.0, 1e12))
def test_more_bytes_never_take_less(a, b):
    known = Prices(TIMINGS)
    less, more = sorted((a, b))
    assert known.one(elementwise(less), 1) <= known.one(elementwise(more), 1) * (1 + 1e-12)


@given(st.lists(st.integers(1, 4096), min_size=4, max_size=4))
def test_any_shape_has_a_finite_price(shape):
    b, m, n, k = shape
    work = Work("matmul", "fp32", 1, 2.0 * b * m * n * k, 4.0 * b * (m * n + n * k), tuple(shape))
    assert 0 < Prices(TIMINGS).one(work, 1) < math.inf
