"""Any machine, data and model: no crash, no plan over its budget, and more is never worse.

`make slow` draws 1,000 triples; the quick suite a tenth of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.files import shipped_names
from autotrain.plan.planner import make_plan
from autotrain.probe.machines import load_machine
from autotrain.schema import (
    DatasetProfile,
    Device,
    HardwareProfile,
    LengthProfile,
    ModelProfile,
    Plan,
    Rates,
    StepTrace,
    Timing,
    Work,
)

from .profiles import GIB, between, dataset, device, goal, machine, machines, model, rates

QUICK, WHOLE = 60, 1000
# What rounding may add to a run that the arithmetic says is as long.
ROUNDING = 1.000001


class Triple(NamedTuple):
    hardware: HardwareProfile
    data: DatasetProfile
    model: ModelProfile


# --- what is drawn -------------------------------------------------------------------------


@st.composite
def shipped(draw) -> HardwareProfile:
    """One of the machines that come along, with more or less of everything."""
    found = load_machine(draw(st.sampled_from(shipped_names("profiles"))))
    devices = [
        faster(each, draw(st.floats(0.05, 20))).model_copy(
            update={"free_bytes": draw(between(GIB // 4, 2 * each.total_bytes))}
        )
        for each in found.devices
    ]
    cores = draw(st.integers(1, 128))
    cpu = found.cpu.model_copy(update={"cores": cores, "logical": 2 * cores})
    return found.model_copy(update={"devices": tuple(devices), "cpu": cpu})


@st.composite
def timed(draw) -> HardwareProfile:
    """A machine that was probed: operators of it were timed, at one thread and at all of them."""
    cores, times = draw(st.integers(1, 64)), draw(st.floats(0.01, 100))
    rows = [
        Timing(kind, dtype, threads, flops, size, shape, times * seconds / threads**0.7)
        for threads in sorted({1, cores})
        for dtype in ("fp32", "bf16")
        for kind, flops, size, shape, seconds in (
            ("matmul", 2e6, 5e4, (1, 100, 100, 100), 4e-5),
            ("matmul", 2e9, 1.2e7, (1, 1000, 1000, 1000), 2e-2),
            ("elementwise", 0.0, 1e4, (), 4e-6),
            ("elementwise", 0.0, 1e7, (), 1e-3),
            ("overhead", 0.0, 0.0, (), 2e-6),
        )
    ]
    own = rates().model_copy(update={"timings": tuple(rows)})
    free = draw(between(GIB, 100 * GIB))
    return machine(device(free=free, rates=own), cores=cores, ram=2 * free)


def tape(weights: tuple[int, ...], each: tuple[int, ...], micro: int) -> tuple[list[int], tuple]:
    """A step of a chain of layers: weights, a batch, activations kept for their gradients."""
    story: list[int] = []
    alive: dict[object, int] = {}

    def born(key: object, size: int) -> None:
        alive[key] = sum(event >= 0 for event in story)
        story.append(size)

    def dies(key: object) -> None:
        story.append(-1 - alive.pop(key))

    def layers(later: bool) -> None:
        for layer, size in enumerate(each):
            born(("activation", layer), size * micro)
        for layer, size in reversed(list(enumerate(weights))):
            dies(("activation", layer))
            born(("new", layer) if later else ("gradient", layer), size)
            if later:
                dies(("new", layer))

    for layer, size in enumerate(weights):
        born(("weight", layer), size)
    marks = [len(story)]
    born("batch", each[0] * micro)
    for later in (False, True):
        marks.append(len(story))
        layers(later)
    for layer in range(len(weights)):
        dies(("gradient", layer))
    marks.append(len(story))
    born("forward", each[0] * micro)
    dies("forward")
    return story, tuple(marks)


def peak(story: list[int], until: int) -> int:
    sizes, now, most = [], 0, 0
    for event in story[:until]:
        sizes += [event] if event >= 0 else []
        now += event if event >= 0 else -sizes[-1 - event]
        most = max(most, now)
    return most


def traced(
    weights: tuple[int, ...], each: tuple[int, ...], micro: int, dtype: str, length: float = 0.0
) -> StepTrace:
    each = each if dtype == "fp32" else tuple(max(size // 2, 1) for size in each)
    if length:
        each = tuple(max(round(size * length), 1) for size in each)
    story, marks = tape(weights, each, micro)
    flops, moved = 6.0 * micro * sum(weights) / 4, 4.0 * micro * sum(each)
    work = (
        Work("matmul", dtype, 3 * len(each), flops / 3 / len(each), moved / 9, (1, micro, 64, 64)),
        Work("elementwise", dtype, 10 * len(each), 0.0, moved / 10),
    )
    return StepTrace(
        micro_batch=micro,
        length=length,
        dtype=dtype,
        peak_bytes=peak(story, marks[2]),
        accumulate_peak_bytes=peak(story, marks[3]),
        evaluate_peak_bytes=sum(weights) + 2 * each[0] * micro,
        batch_bytes=each[0] * micro,
        matmul_flops=flops,
        convolution_flops=0.0,
        moved_bytes=moved,
        ops=20 * len(each),
        work=work,
        tape=tuple(story),
        marks=marks,
    )


@st.composite
def taped(draw) -> ModelProfile:
    """A chain of layers that was traced with its tape; with lengths, or without."""
    count = draw(st.integers(1, 6))
    sizes = st.tuples(*[between(4, 64 << 20).map(lambda n: 4 * n)] * count)
    weights, each = draw(sizes), draw(sizes)
    train, held = draw(between(2, 10**6)), sum(weights)
    points = sorted(draw(st.lists(st.floats(1, 200), min_size=2, max_size=20)))
    known = LengthProfile(
        count=train, read=train, mean=sum(points) / len(points), points=tuple(points)
    )
    lengths = known if draw(st.booleans()) else None
    seen = sorted({points[0], points[len(points) // 2], points[-1]}) if lengths else [0.0]
    return model(
        held, sum(each), train, draw(st.integers(0, 10**4)), tensors=count,
        largest_parameter_bytes=max(weights), trainable_sizes=weights,
        sample_seconds=draw(st.floats(0, 0.1)),
        traces=tuple(
            traced(weights, each, micro, dtype, length)
            for dtype in ("fp32", "bf16", "fp16")
            for length in seen
            for micro in (2, 8)
        ),
        lengths=lengths,
    )  # fmt: skip


@st.composite
def triples(draw) -> Triple:
    found = draw(taped())
    hardware = draw(st.one_of(shipped(), timed(), machines()))
    return Triple(hardware, dataset(found.train_count + found.valid_count), found)


# --- variations ----------------------------------------------------------------------------


def faster(of: Device, times: float) -> Device:
    """Everything that it computes or moves, `times` as fast."""
    old = of.rates
    new = Rates(
        matmul={dtype: rate * times for dtype, rate in old.matmul.items()},
        convolution={dtype: rate * times for dtype, rate in old.convolution.items()},
        bandwidth=old.bandwidth * times,
        op_seconds=old.op_seconds / times,
        source=old.source,
        timings=tuple(row._replace(seconds=row.seconds / times) for row in old.timings),
    )
    return of.model_copy(update={"rates": new})


def roomier(of: Device, times: float) -> Device:
    """`times` the memory."""
    free, total = int(of.free_bytes * times), int(of.total_bytes * times)
    return of.model_copy(update={"free_bytes": free, "total_bytes": total})


def attempt(triple: Triple) -> Plan | None:
    """The plan; None where it is refused in words. Anything else is a crash."""
    try:
        return make_plan(triple.hardware, triple.data, triple.model, goal(), version="0.1.0")
    except (DoesNotFitError, UsageError):
        return None


def with_devices(triple: Triple, change: Callable[[Device], Device]) -> Plan | None:
    devices = tuple(map(change, triple.hardware.devices))
    return attempt(
        triple._replace(hardware=triple.hardware.model_copy(update={"devices": devices}))
    )


def holds(triple: Triple, times: float) -> None:
    """Within its budget; with more memory no smaller a micro_batch, with more speed no longer."""
    plan = attempt(triple)
    if plan is None:
        return
    cut = plan.batch
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes
    assert cut.micro_batch * cut.accum_steps * cut.world_size == cut.global_batch
    more = with_devices(triple, lambda each: roomier(each, times))
    assert more is not None
    assert more.batch.micro_batch >= cut.micro_batch
    quick = with_devices(triple, lambda each: faster(each, times))
    assert quick is not None
    longest = plan.predicted.run_seconds.expected * ROUNDING
    assert quick.predicted.run_seconds.expected <= longest


@settings(max_examples=QUICK)
@given(triples(), st.floats(1, 30))
def test_a_plan_fits_and_more_memory_or_speed_is_never_worse(triple, times):
    holds(triple, times)


@pytest.mark.slow
@settings(max_examples=WHOLE)
@given(triples(), st.floats(1, 30))
def test_a_thousand_triples(triple, times):
    holds(triple, times)
