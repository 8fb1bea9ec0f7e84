"""Which samples form which step."""

from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.run.loading.order import Order, cut

sizes = st.integers(1, 60)


def order(count, global_batch, micro_batch, seed=0, no_single=False, bucketing=False):
    lengths = torch.rand(count, generator=torch.Generator().manual_seed(count)).double()
    return Order(count, global_batch, micro_batch, seed, no_single, lengths if bucketing else None)


def flat(window):
    return list(chain.from_iterable(window))


def epoch_of(order, epoch=0):
    first = epoch * order.steps_per_epoch
    return [order.window(first + step) for step in range(order.steps_per_epoch)]


@given(sizes, sizes, sizes, st.integers(0, 2**63), st.booleans(), st.booleans(), st.integers(0, 3))
def test_an_epoch_holds_every_sample_exactly_once(
    count, global_batch, micro, seed, no_single, bucketing, epoch
):
    """No sample is dropped with the ragged last window, none is seen twice."""
    windows = epoch_of(order(count, global_batch, micro, seed, no_single, bucketing), epoch)
    seen = sorted(index for window in windows for micro_batch in window for index in micro_batch)
    assert seen == list(range(count))


@given(sizes, sizes, sizes, st.booleans(), st.booleans())
def test_no_window_or_micro_batch_is_larger_than_planned(
    count, global_batch, micro, no_single, bucketing
):
    """Memory was planned for micro_batch samples, learning for global_batch."""
    for window in epoch_of(order(count, global_batch, micro, 0, no_single, bucketing)):
        assert sum(map(len, window)) <= global_batch
        assert all(1 <= len(micro_batch) <= micro for micro_batch in window)


@given(st.integers(2, 80), st.integers(3, 40), st.integers(3, 40))
def test_batch_norm_never_meets_a_single_sample(count, global_batch, micro):
    """A tail of one sample is evened out with what comes before it."""
    for window in epoch_of(order(count, global_batch, micro, no_single=True)):
        assert all(len(micro_batch) >= 2 for micro_batch in window)


@given(sizes, sizes, st.booleans())
def test_evening_out_adds_no_window(count, most, no_single):
    """The number of steps in an epoch is the plan's."""
    made = cut(count, most, no_single=no_single)
    assert sum(made) == count
    assert len(made) == -(-count // most)


@pytest.mark.parametrize("bucketing", [False, True])
def test_the_order_depends_on_seed_and_epoch_alone(bucketing):
    """Two runs agree; two epochs and two seeds differ."""
    one, two = order(50, 8, 3, bucketing=bucketing), order(50, 8, 4, bucketing=bucketing)
    flattened = [flat(window) for window in epoch_of(one, 2)]
    assert flattened == [flat(window) for window in epoch_of(two, 2)]
    assert flattened != [flat(window) for window in epoch_of(one, 1)]
    other = order(50, 8, 3, seed=1, bucketing=bucketing)
    assert flattened != [flat(window) for window in epoch_of(other, 2)]


def test_bucketing_spares_padding():
    """Samples of like length share a micro-batch: under a quarter of the padding is left."""
    plain, bucketed = (order(2000, 32, 8, bucketing=b) for b in (False, True))

    def padding(order):
        lengths = torch.rand(2000, generator=torch.Generator().manual_seed(2000)).double()
        parts = [lengths[m] for window in epoch_of(order) for m in window]
        return sum(float((p.max() - p).sum()) for p in parts)

    assert padding(bucketed) < padding(plain) / 4


def test_bucketed_windows_come_in_mixed_order():
    """A model does not see all short samples first."""
    bucketed = order(2000, 32, 8, bucketing=True)
    lengths = torch.rand(2000, generator=torch.Generator().manual_seed(2000)).double()
    means = [float(lengths[flat(window)].mean()) for window in epoch_of(bucketed)]
    rises = sum(b > a for a, b in pairwise(means))
    assert 0.3 < rises / len(means) < 0.7
