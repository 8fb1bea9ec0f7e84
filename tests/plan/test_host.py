"""From tensors to a process: malloc's heap simulated, and what is resident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import heap, host, kernels, memory
from autotrain.schema import ModelSection, Prediction, StepTrace
from autotrain.units import MIB

from .profiles import model

KIB = 1024


def alive_peak(tape):
    sizes, now, peak = [], 0, 0
    for event in tape:
        if event >= 0:
            sizes.append(event)
        now += event if event >= 0 else -sizes[-1 - event]
        peak = max(peak, now)
    return peak


@st.composite
def tapes(draw):
    tape, alive = [], []
    for number, size in enumerate(draw(st.lists(st.integers(1, 3 * MIB), max_size=40))):
        tape.append(size)
        alive.append(number)
        while alive and draw(st.booleans()):
            tape.append(-1 - alive.pop(draw(st.integers(0, len(alive) - 1))))
    return tape


@given(tapes())
def test_what_is_resident_is_never_less_than_what_is_alive(tape):
    assert heap.resident_peak(tape) >= alive_peak(tape)


def holed():
    """Ten holes of 4 MiB, and then five requests that fit into none of them."""
    tape = [4 * MIB, 1 * MIB] * 10
    tape += [-1 - number for number in range(0, 20, 2)]
    return [*tape, *[6 * MIB] * 5]


def test_what_is_freed_stays_and_serves_the_next_of_its_size():
    tape = [40 * MIB, -1, 40 * MIB, -2, 40 * MIB, -3]
    assert 40 * MIB <= heap.resident_peak(tape) < 40 * MIB + 8 * KIB
    assert heap.played(tape).extent >= 40 * MIB


def test_holes_that_are_too_small_stay_resident():
    assert heap.resident_peak(holed()) > alive_peak(holed()) + 25 * MIB


def test_where_nothing_is_kept_large_requests_go_back_at_once():
    assert heap.resident_peak(holed(), keeps=False) < alive_peak(holed()) + 1 * MIB
    assert heap.played([40 * MIB, -1], keeps=False).mapped == 0


def test_activations_that_are_computed_again_leave_no_holes():
    """A run that computes again has malloc give back what is freed, and is predicted so."""
    holed_step = trace(8).model_copy(
        update={"tape": (100 * MIB, KIB, *holed()[:20], *(n - 2 for n in holed()[20:30]),
                         *holed()[30:])},
    )  # fmt: skip
    marks = (1, 2, len(holed_step.tape), len(holed_step.tape))
    holed_step = holed_step.model_copy(update={"marks": marks})
    again = SETUP._replace(form=ModelSection(activation_checkpointing=True))
    kept, *_ = host.heap_bytes(holed_step, (100 * MIB,), SETUP)
    given_back, *_ = host.heap_bytes(holed_step, (100 * MIB,), again)
    assert kept > given_back + 25 * MIB


def test_small_bytes_are_those_that_a_step_puts_on_the_heap():
    tape = [6 * MIB, 64 * MIB, 3 * MIB, 5 * MIB, -3, -2]
    assert heap.alive_peak(tape, 1, lambda size: size < heap.MOST) == 8 * MIB
    assert heap.alive_peak(tape, 0, lambda size: size < heap.MOST) == 14 * MIB
    assert heap.alive_peak(tape, 0, lambda size: size >= heap.MOST) == 64 * MIB


def trace(micro_batch):
    size = micro_batch * MIB
    return StepTrace(
        micro_batch=micro_batch, dtype="fp32", peak_bytes=100 * MIB + 2 * size,
        accumulate_peak_bytes=100 * MIB + 2 * size, evaluate_peak_bytes=100 * MIB + size,
        batch_bytes=KIB, matmul_flops=1, convolution_flops=0, moved_bytes=1, ops=1,
        tape=(100 * MIB, KIB, size, size, -3, 100 * MIB, -4, size, -6, -5, size, -7),
        marks=(1, 2, 7, 10),
    )  # fmt: skip


SETUP = memory.Setup(8, 1, "fp32", "adamw", "fused", None)


def seen(of, setup=SETUP, saved=0, workers=0):
    peak = memory.tensor_peak_bytes(of, setup)
    return host.resident(of, setup, memory.tensor_interval(peak), saved, workers)


def profile(**more):
    of = model(weights=100 * MIB)
    return of.model_copy(update={"traces": tuple(trace(size) for size in (2, 8)), **more})


def test_what_the_task_loads_is_part_of_the_process():
    little, much = (seen(profile(loaded_bytes=size * MIB)) for size in (50, 450))
    assert much.expected - little.expected == 400 * MIB


def test_the_interval_holds_the_tensors_and_its_parts_are_in_order():
    for micro in (1, 2, 5, 8, 64):
        setup = SETUP._replace(micro_batch=micro)
        found = seen(profile(), setup)
        assert found.low <= found.expected <= found.high
        assert found.expected >= host.BASE_BYTES + memory.tensor_peak_bytes(profile(), setup)


def test_more_samples_never_take_less():
    sizes = [seen(profile(), SETUP._replace(micro_batch=n)).high for n in range(1, 80)]
    assert sizes == sorted(sizes)


def test_a_save_copies_what_it_writes():
    saved = 2000 * MIB
    assert seen(profile(), saved=saved).expected >= host.BASE_BYTES + 2 * saved


def test_where_samples_differ_in_size_large_tensors_leave_holes_too():
    """Unless activations are computed again: there, what is large goes back at once."""
    large = SETUP._replace(micro_batch=64, kernels=1)
    again = large._replace(form=ModelSection(activation_checkpointing=True))
    alike, differ = (
        model(weights=100 * MIB).model_copy(
            update={"traces": tuple(trace(size) for size in (8, 64)), "uneven": uneven}
        )
        for uneven in (False, True)
    )
    more = seen(differ, large).high - seen(alike, large).high
    code = kernels.held(differ, 1).high
    assert more > 10 * MIB + code
    assert seen(differ, large).low == seen(alike, large).low
    assert seen(differ, again).high - seen(alike, again).high == pytest.approx(code)


def test_workers_come_on_top():
    assert seen(profile(), workers=MIB).high - seen(profile()).high == MIB


def test_without_tapes_the_tensors_alone_tell():
    of = model(weights=100 * MIB)
    assert not of.traces[0].tape
    tensors = Prediction(low=1000 * MIB, expected=1000 * MIB, high=1000 * MIB)
    found = host.resident(of, SETUP, tensors, 0, 0)
    assert found.expected > host.base_bytes(of) + 1000 * MIB


def test_what_is_never_written_to_is_not_resident():
    """With a tape to simulate; without one, the tensors' slack covers more than that."""
    setup = memory.Setup(8, 1, "fp32", "sgd", "fused", None)
    tensors = Prediction(low=512 * MIB, expected=512 * MIB, high=512 * MIB)
    whole = model(weights=4 * MIB, each=64 * MIB)

    def seen(untouched):
        more = {"tape": (4 * MIB, 600 * MIB, -2), "marks": (1, 1, 3, 3)}
        traces = [t.model_copy(update=more | {"untouched_bytes": untouched}) for t in whole.traces]
        known = whole.model_copy(update={"traces": tuple(traces)})
        return host.resident(known, setup, tensors, 0, 0).expected

    assert seen(0) - seen(80 * MIB) == 80 * MIB
