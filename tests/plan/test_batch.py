"""How a global batch is chosen and cut."""

from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import batch

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
    assert 8 <= size <= 256
    assert size & (size - 1) == 0
    if 64 <= samples <= 2**16:
        assert samples**0.5 / 1.5 < size < samples**0.5 * 1.5


@given(SHARES, SHARES)
def test_the_origins_accumulation_falls_short_where_it_does_not_divide(target, micro):
    steps = batch.floor_accumulation_rule(target, micro)
    assert steps >= 1
    if target % micro and target > micro:
        assert steps * micro < target
