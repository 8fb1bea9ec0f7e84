"""From tensors to a process on a CPU: what the system sees resident.

A base (Python, torch, what the task imports and the data it keeps), and what malloc holds for
the tensors: more than there are, because holes between them stay resident.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from autotrain.plan import heap, kernels, sequence
from autotrain.plan.memory import Setup, affine, as_tensors_grow
from autotrain.schema import ModelProfile, Plan, Prediction, StepTrace
from autotrain.units import MIB

# A Python process that has imported torch, numpy and what a run needs, before its task. What the
# task adds is measured where it is planned (`ModelProfile.loaded_bytes`); TASK where it was not.
# Measured: docs/measurements/2026-11-20-cpu-memory.md.
BASE_BYTES, TASK_BYTES = 567 * MIB, 108 * MIB
# What each stage before one leaves in their process: libraries that draw reports, kernels, malloc's
# holes. Measured: docs/measurements/2026-11-20-cpu-memory.md.
LEFT_BYTES = 90 * MIB
# What malloc kept of the stage before is not all of use to the next one: expected and high. Seven
# stages that needed less than those before them grew by 31 to 90 MiB.
GROWTH_AFTER = (30 * MIB, 90 * MIB)
# RSS over the bytes of the tensors where no trace tells in which order they came.
SLACK = 1.15
# Of a step's tensors on malloc's heap, how much more is resident: holes that operators leave
# which take memory inside, before their output. Low, expected, high; same measurements.
HOLES = (0.0, 0.45, 1.0)
# Where samples differ in size, more of these and of larger tensors too: those of one micro-batch
# fit into no hole that another's left. Measured: docs/measurements/2026-11-30-many-sizes.md.
HOLES_OF_MANY, LARGE_HOLES = (0.0, 0.9, 2.0), (0.0, 0.7, 1.3)
# And of one that is the largest by far, wherever it comes again: whatever small lies before or
# behind the hole that it left, it does not fit into it.
SOLE_HOLES = (0.0, 1.0, 2.0)
# Kernels as they are first used: their code, and what oneDNN and MKL keep.
KERNELS = Prediction(low=0, expected=12 * MIB, high=40 * MIB)
# The compiler in the process, and the code that it made: 29 to 130 MiB of three models.
COMPILER = Prediction(low=0, expected=90 * MIB, high=300 * MIB)
NOTHING = Prediction(low=0, expected=0, high=0)
# More than malloc ever kept for a step, over the bytes of its tensors.
MOST_KEPT = 8.0
# A forked loader worker's own pages; a spawned one imports torch again.
FORK_WORKER_BYTES, SPAWN_WORKER_BYTES = 120 * MIB, 420 * MIB


def base_bytes(model: ModelProfile) -> int:
    """The process before its first step, without the model."""
    return BASE_BYTES + (model.loaded_bytes or TASK_BYTES)


def left_bytes(model: ModelProfile) -> int:
    """What stages before it leave in the process."""
    return LEFT_BYTES * model.follows


def kept_of(plan: Plan) -> Prediction | None:
    """What a run of the plan leaves in its process: its peak, where malloc keeps what is freed."""
    kept = plan.device.kind == "cpu" and plan.model.keeps_freed(plan.device.keep_freed)
    return plan.predicted.device_peak_bytes if kept else None


def after(own: Prediction, before: Prediction | None, most: float) -> Prediction:
    """A stage's peak in the process of the stage before, whose peak malloc has kept: no less.

    `own`: what it would take by itself. Its budget `most` bounds what is added to either.
    """
    if before is None:
        return own
    expected, high = (
        max(mine, theirs, min(theirs + more, most))
        for mine, theirs, more in zip(
            (own.expected, own.high), (before.expected, before.high), GROWTH_AFTER, strict=True
        )
    )
    return Prediction(low=own.low, expected=expected, high=max(expected, high))


def resident(
    model: ModelProfile, setup: Setup, tensors: Prediction, saved_bytes: int, worker_bytes: int
) -> Prediction:
    """The process's RSS, with what it shares with others, and its loader workers'.

    A save may be the peak: `saved_bytes` of weights and states, and a copy of them, which lies
    beside the next steps where it is written in the background. The holes are those of glibc;
    other systems' allocators keep as much or less of them.
    """
    of_small, of_large = (HOLES_OF_MANY, LARGE_HOLES) if model.differ else (HOLES, (0.0, 0.0, 0.0))
    shares = zip(of_small, of_large, SOLE_HOLES, strict=True)
    low, expected, high = (_tensors(model, setup, tensors, each) for each in shares)
    if setup.form.compile:  # its tensors are no trace's
        low, expected = min(low, tensors.low), max(expected, tensors.expected)
        high = max(high, SLACK * tensors.high)
    return _process(model, setup, (low, expected, high), saved_bytes, worker_bytes)


def at_most(
    model: ModelProfile, setup: Setup, tensors: float, saved_bytes: int, worker_bytes: int
) -> float:
    """More than `resident` can come to, however a step's tensors of so many bytes may lie."""
    held = MOST_KEPT * tensors
    return _process(model, setup, (held, held, held), saved_bytes, worker_bytes).high


def _process(
    model: ModelProfile, setup: Setup, held: tuple[float, float, float], saved_bytes: int,
    worker_bytes: int,
) -> Prediction:  # fmt: skip
    """The process around `held` bytes of a step's tensors: low, expected, high."""
    low, expected, high = held
    base = base_bytes(model)
    saved = (1.0 + (1.0 / setup.world if setup.shard else 1.0)) * saved_bytes
    copy = saved_bytes if setup.background else 0
    worker_bytes += shared_bytes(model, setup)
    more = COMPILER if setup.form.compile else NOTHING
    code = kernels.held(model, setup.kernels)
    return Prediction(
        low=0.97 * (base + max(0.95 * low, 0.9 * saved)),
        expected=base
        + KERNELS.expected
        + code.expected
        + max(expected + copy, 1.03 * saved)
        + more.expected
        + worker_bytes,
        high=1.02 * base
        + KERNELS.high
        + code.high
        + max(high + 1.1 * copy, 1.15 * saved)
        + more.high
        + worker_bytes,
    )


def shared_bytes(model: ModelProfile, setup: Setup) -> int:
    """Where processes on one machine add gradients up: those of each, twice over."""
    return 2 * setup.world * model.trainable_bytes if setup.several else 0


def _tensors(
    model: ModelProfile, setup: Setup, tensors: Prediction, shares: tuple[float, float, float]
) -> float:
    """Bytes that a step's tensors keep resident, with so much of the heap in holes."""
    traces = model.at(setup.dtype)
    share, of_large, of_sole = shares
    if setup.shard or not all(trace.tape for trace in traces):
        return tensors.expected * (1.0 + (SLACK - 1.0) * 2 * share)

    def kept(trace: StepTrace) -> float:
        heaped = heap_bytes(trace, model.trainable_sizes, setup)
        holes = share * heaped.small + of_large * heaped.large + of_sole * heaped.sole
        return heaped.whole + holes - trace.untouched_bytes

    untouched = affine(traces, lambda t: t.untouched_bytes, setup.micro_batch)
    line = min(as_tensors_grow(model, setup, traces, kept), MOST_KEPT * tensors.high)
    return max(line, tensors.expected - untouched)


class Heaped(NamedTuple):
    """What malloc keeps for a short run of steps, and the most of a step on its heap: of small
    tensors, of larger ones, and the largest where it is alone; none of those that go back at once.
    """

    whole: int
    small: int
    large: int
    sole: int


def heap_bytes(trace: StepTrace, sizes: tuple[int, ...], setup: Setup) -> Heaped:
    """A traced step on malloc's heap."""
    keeps = setup.form.keeps_freed(setup.keep_freed)
    return _heaped(trace, sizes, sequence.alike(trace, setup), keeps)


@functools.lru_cache(maxsize=256)
def _heaped(trace: StepTrace, sizes: tuple[int, ...], setup: Setup, keeps: bool) -> Heaped:
    tape, start = sequence.run_tape(trace, sizes, setup, sequence.Scene()), trace.marks[1]
    whole = heap.resident_peak(tape, keeps=keeps)
    small = heap.alive_peak(trace.tape, start, lambda size: size < heap.MOST)
    if not keeps:
        return Heaped(whole, small, 0, 0)
    large = heap.alive_peak(trace.tape, start, lambda size: size >= heap.MOST)
    most = max(trace.tape[start:], default=0)
    near = heap.alive_peak(trace.tape, start, lambda size: size >= most / 2)
    return Heaped(whole, small, large, most if most >= heap.MOST and near < 1.5 * most else 0)
