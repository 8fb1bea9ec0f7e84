"""Sums that nobody reads until a log point."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.run.meter import Meter, Tally

numbers = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.tuples(numbers, st.booleans()), max_size=30))
def test_a_tally_adds_up_tensors_and_numbers_exactly(values):
    """In float64, whatever the order and wherever the scalars are."""
    tally = Tally()
    for value, tensor in values:
        tally.add({"x": torch.tensor(value) if tensor else value})
    assert tally.read() == ({"x": math.fsum(v for v, _ in values)} if values else {})


def test_a_long_interval_keeps_few_scalars():
    """A thousand rows become one."""
    tally = Tally()
    for number in range(2500):
        tally.add({"x": torch.tensor(float(number)), "y": 1})
    assert len(tally.rows) < 1001
    assert tally.read() == {"x": sum(range(2500)), "y": 2500}


def test_opposite_infinities_read_as_nan():
    """What is not finite is for the log point to judge."""
    tally = Tally([{"x": math.inf}, {"x": -math.inf}])
    assert math.isnan(tally.read()["x"])


def test_a_meter_goes_on_from_its_state():
    """The log point after a resume reads as if nothing had happened."""
    one = Meter()
    rows = [{"loss": torch.tensor(1.5), "weight": 2}]
    one.add(1, rows, 0.0, samples=2, seconds=0.5, waited=0.25)
    two = Meter.from_state(one.state())
    for meter in (one, two):
        rows = [{"loss": torch.tensor(0.1), "weight": 3}]
        meter.add(2, rows, 0.0, samples=3, seconds=0.5, waited=0.25)
        meter.read()
    assert one.sums.read() == two.sums.read()
    assert (two.steps, two.samples, two.seconds, two.waited) == (2, 5, 1.0, 0.5)
