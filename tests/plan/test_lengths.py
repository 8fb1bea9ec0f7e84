"""A model whose samples differ in length, seen at one of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import lengths, orders
from autotrain.plan.memory import Setup, tensor_peak_bytes
from autotrain.schema import LengthProfile, Work

from .profiles import MIB, model, trace

points = st.lists(st.integers(1, 5000), min_size=1, max_size=300).map(sorted)


def profile(values, count=None):
    values = [float(value) for value in values]
    return LengthProfile(
        count=count or len(values), read=len(values), mean=math.fsum(values) / len(values),
        points=tuple(sorted(values)),
    )  # fmt: skip


def varied(values, ends, each=1000.0, square=0.0, micros=(2, 8), train=1000, **more):
    """A model traced at those lengths: a sample of length L takes each x L + square x L^2."""
    weights = more.pop("weights", 40 * MIB) // 4 * 4
    traces = tuple(
        trace(micro, weights, each * end + square * end**2, weights).model_copy(
            update={"length": float(end), "matmul_flops": 1e6 * micro * end}
        )
        for end in ends
        for micro in micros
    )
    known = profile(values, train)
    return model(weights, traces=traces, lengths=known, train=train, **more)


# --- the curve's other axis ----------------------------------------------------------------


@given(
    st.lists(st.integers(10, 4000), min_size=2, max_size=5, unique=True).map(sorted),
    st.floats(0, 5000),
    st.floats(0, 50),
    st.floats(0, 1),
    st.integers(1, 200),
)
def test_between_lengths_a_step_is_never_taken_for_less_than_it_is(ends, each, square, at, micro):
    of = varied(ends, ends, each, square)
    length = ends[0] + at * (ends[-1] - ends[0])
    there = varied([*ends, length], sorted({*ends, length}), each, square)
    setup = Setup(micro, 2, "fp32", "adamw", "fused", None, length)
    seen = tensor_peak_bytes(lengths.at_length(of, length), setup)
    true = tensor_peak_bytes(lengths.at_length(there, length), setup)
    # A trace's bytes are whole: along a line, a byte in six becomes one in each sample.
    assert seen >= true - 2 - micro
    if square == 0:
        assert seen <= true + 2 + micro


def test_a_traced_length_is_seen_as_it_was_traced_and_the_longest_is_the_model_itself():
    of = varied([100, 400, 900], [100, 400, 900], square=3.0)
    seen = lengths.at_length(of, 400)
    assert [(t.micro_batch, t.length) for t in seen.traces] == [(2, 400), (8, 400)]
    assert set(seen.traces) < set(of.traces)
    for longest in (0.0, 900, 5000):
        assert lengths.at_length(of, longest) is of
        assert {t.length for t in of.at("fp32")} == {900}
    assert lengths.at_length(model(), 400).traces == model().traces


def test_below_the_shortest_no_byte_is_spared_and_work_shrinks():
    of = varied([100, 400], [100, 400])
    seen, shortest = lengths.at_length(of, 50).traces[0], of.traces[0]
    assert seen.peak_bytes == shortest.peak_bytes
    assert seen.matmul_flops == shortest.matmul_flops / 2


def test_tapes_of_one_make_are_drawn_between_and_others_are_the_longer_ones():
    tapes = {100: (8, 100, -2, -1), 400: (8, 400, -2, -1)}
    of = varied([100, 400], [100, 400])
    of = of.model_copy(
        update={"traces": tuple(t.model_copy(update={"tape": tapes[t.length]}) for t in of.traces)}
    )
    assert lengths.at_length(of, 250).traces[0].tape == (8, 250, -2, -1)
    other = of.traces[0].model_copy(update={"tape": (8, 100, -2, 7, -3, -1)})
    of = of.model_copy(update={"traces": (other, *of.traces[1:])})
    assert lengths.at_length(of, 250).traces[0].tape == tapes[400]


# --- a distribution of lengths -------------------------------------------------------------


@given(points, st.integers(1, 8), st.floats(0.01, 0.5))
def test_edges_are_samples_rise_end_at_the_longest_and_waste_little(values, most, waste):
    found = lengths.edges(profile(values), most, waste)
    assert set(found) <= set(map(float, values))
    assert list(found) == sorted(set(found))
    assert found[-1] == max(values)
    assert len(found) <= most

    def rounded(ends):
        return sum(min(end for end in ends if end >= value) for value in values)

    if len(found) < most and len(set(values)) <= 64:
        assert 1 - sum(values) / rounded(found) <= waste + 1e-9
    if len(found) > 1:
        assert rounded(found) <= rounded(found[1:])


@given(points, st.integers(1, 40))
def test_the_longest_of_several_draws(values, drawn):
    known = profile(values)
    longest = lengths.expected_longest(known, -1.0, known.maximum, drawn)
    assert longest >= known.mean * (1 - 1e-9)
    assert longest <= known.maximum * (1 + 1e-9)
    if drawn == 1:
        assert longest == pytest.approx(known.mean)
    assert lengths.expected_longest(known, -1.0, known.maximum, drawn, 7) <= known.maximum


@given(points, st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_pieces_hold_every_sample_and_no_micro_batch_is_too_large(values, one, other, at):
    known = profile(values)
    end = float(values[int(at * (len(values) - 1))])
    parts = ((end, max(one, other)), (known.maximum + 1, min(one, other)))
    made = lengths.pieces(known, parts, known.count)
    short = sum(value <= end for value in values)
    assert sum(p.batches for p in made) == -(-short // parts[0][1]) + -(
        -(len(values) - short) // parts[1][1]
    )
    assert all(p.micro_batch <= max(one, other) for p in made)
    assert sum(p.batches * p.micro_batch for p in made) == len(values)
    assert 0 <= lengths.padding(known, parts) < 1


def test_the_padding_said_is_about_what_a_run_pads():
    """Lengths of a long tail, in the order that a run takes them; sorted bit by bit, and not."""
    from itertools import chain

    import torch

    from autotrain.run.loading.bucketed import LEAST_PARTS, SORTED, BucketedOrder

    assert (LEAST_PARTS, SORTED) == (lengths.LEAST_PARTS, lengths.SORTED)
    values = [float(20 * 1.001**i) for i in range(4000)]
    order = BucketedOrder(torch.tensor(values).double(), ((150.0, 20), (1100.0, 4)), 3000.0, 1)
    batches = chain(*(order.window(step) for step in range(order.steps_per_epoch)))
    padded = sum(len(batch) * float(order.lengths[batch].max()) for batch in batches)
    real = 1 - sum(values) / padded
    said = lengths.padding(profile(values), order.buckets, 4000)
    assert said == pytest.approx(real, rel=0.25)
    assert lengths.padding(profile(values), order.buckets) > 5 * real


def test_between_two_lengths_the_work_lies_between():
    def of(length, size):
        step = trace(8, 1e6, 1e5, 1e6)
        return step.model_copy(update={"length": length, "work": (copy(10, size),)})

    def copy(calls, size):
        return Work("copy", "fp32", calls, 0, size)

    short, long = of(100.0, 1e6), of(300.0, 3e6)
    assert lengths._between(short, long, 200.0).work == (copy(5, 1e6), copy(5, 3e6))
    assert lengths._shorter(short, 50.0).work == (copy(5, 1e6),)


def test_the_usual_longest_of_a_draw_is_told_in_four_parts_of_equal_chance():
    """Their mean is the mean longest; of two samples' longest it comes to the square's law."""
    known = profile(list(range(1, 101)))
    for drawn in (1, 2, 8, 64):
        parts = orders.usual_longest(known, drawn)
        assert list(parts) == sorted(parts)
        mean = lengths.expected_longest(known, -1, known.maximum, drawn)
        assert sum(parts) / len(parts) == pytest.approx(mean)
    assert orders.usual_longest(known, 1) == pytest.approx((13, 38, 63, 88))
    assert orders.usual_longest(profile([1, 742]), 4) == pytest.approx((556.75, 742, 742, 742))
