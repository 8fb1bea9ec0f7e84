"""What a replay of a step changes in the predicted times."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import compute, pricing
from autotrain.schema import ModelSection, Replay, Timing, Work

from .profiles import device as cpu
from .profiles import model

TIMINGS = (Timing("elementwise", "fp32", 2, 0, 1e6, (), 1e-4),)
PLAIN = ModelSection()


def device(threads=2):
    made = cpu()
    rates = made.rates.model_copy(update={"timings": TIMINGS})
    return made.model_copy(update={"rates": rates})


def timing(**seconds):
    """A device on which a megabyte of each kind of operator takes so long."""
    rows = tuple(Timing(kind, "fp32", 2, 0, 1e6, (), each) for kind, each in seconds.items())
    made = cpu()
    return made.model_copy(update={"rates": made.rates.model_copy(update={"timings": rows})})


def moving(kind, size):
    return Work(kind, "fp32", 1, 0.0, size)


def worked(*replays, dtype="fp32"):
    """A model whose step works through as many bytes as it has samples."""
    made = model(dtypes=(dtype,))
    traces = [
        t.model_copy(
            update={
                "work": (Work("elementwise", "fp32", 1, 0.0, 1e6 * t.micro_batch),),
                "evaluate_work": (Work("elementwise", "fp32", 1, 0.0, 2.5e5 * t.micro_batch),),
            }
        )
        for t in made.traces
    ]
    return made.model_copy(update={"traces": tuple(traces), "replays": replays})


def replay(micro=8, seconds=2e-3, evaluate=1e-3, **more):
    known = pricing.prices(TIMINGS)
    own = worked().at("fp32")
    trace = next(t for t in own if t.micro_batch == micro)
    fields = {
        "micro_batch": micro, "length": 0.0, "dtype": "fp32", "form": PLAIN, "threads": 2,
        "seconds": seconds, "evaluate_seconds": evaluate,
        "priced": known.seconds(trace.work, 2),
        "evaluate_priced": known.seconds(trace.evaluate_work, 2),
    }  # fmt: skip
    return Replay(**(fields | more))


def seconds(of, micro, dtype="fp32", threads=2):
    return compute.micro_batch_seconds(of, device(), micro, dtype, threads)


def test_at_the_size_that_was_played_a_step_takes_what_it_took():
    assert seconds(worked(replay()), 8) == pytest.approx(2e-3)
    evaluated = compute.forward_seconds(worked(replay()), device(), 8, "fp32", 2)
    assert evaluated == pytest.approx(1e-3)


def test_other_sizes_are_as_much_slower_than_their_operators():
    of = worked(replay())
    ratio = seconds(of, 8) / seconds(worked(), 8)
    assert seconds(of, 2) == pytest.approx(ratio * seconds(worked(), 2))


def test_between_two_sizes_that_were_played_the_pace_lies_between():
    of = worked(replay(2, seconds=1e-3), replay(8, seconds=2e-3))
    assert seconds(of, 2) == pytest.approx(1e-3)
    assert seconds(of, 8) == pytest.approx(2e-3)
    assert 1e-3 < seconds(of, 4) < 2e-3


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": "bf16"},
        {"threads": 1},
        {"form": ModelSection(memory_format="channels_last")},
    ],
)
def test_another_way_to_run_the_model_says_nothing_of_this_one(other):
    assert seconds(worked(replay(**other)), 8) == seconds(worked(), 8)


def test_tf32_is_timed_as_fp32_is():
    assert seconds(worked(replay()), 8, "tf32") == pytest.approx(2e-3)


@given(st.integers(1, 512), st.floats(1e-5, 10), st.floats(1e-5, 10))
def test_any_two_replays_give_a_finite_time(micro, one, other):
    of = worked(replay(2, seconds=one), replay(8, seconds=other))
    assert 0 < seconds(of, micro) < math.inf


AMOUNTS = st.tuples(st.floats(1e3, 1e9), st.floats(1e3, 1e9))


@given(st.integers(1, 64), AMOUNTS, AMOUNTS, st.floats(1, 100))
def test_what_one_kind_gains_lengthens_a_step_of_no_size(micro, small, large, times):
    """Beyond the traced sizes too: a line through their seconds would rise where one gains more."""
    amounts = {2: small, 8: large}
    made = worked()
    traces = [
        t.model_copy(
            update={"work": tuple(map(moving, ("softmax", "copy"), amounts[t.micro_batch]))}
        )
        for t in made.traces
    ]
    of = made.model_copy(update={"traces": tuple(traces)})
    taken = [
        compute.micro_batch_seconds(of, timing(softmax=1e-4 / each, copy=1e-4), micro, "fp32", 2)
        for each in (1.0, times)
    ]
    assert taken[1] <= taken[0] * (1 + 1e-9)
