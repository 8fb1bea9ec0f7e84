"""From tensors to a GPU: what the caching allocator reserves, and what the driver adds.

Where a step was traced with its tape, a short run of it is played to a simulated allocator
(plan/allocator.py, plan/sequence.py). How well that fits GPU figures published by others, and
where the constants come from: docs/measurements/2026-11-20-gpu-figures.md.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from autotrain.plan.allocator import LARGE_ROUND, Allocator
from autotrain.plan.memory import Setup, as_tensors_grow, tensor_peak_bytes
from autotrain.plan.sequence import Scene, alike, run_tape
from autotrain.schema import Device, ModelProfile, Prediction, StepTrace
from autotrain.units import MIB

# cuBLAS takes one through the allocator for each thread that multiplies, one in the forward and
# one in the backward pass (aten/src/ATen/cuda/CublasHandlePool.cpp: 8 MiB + 128 KiB, and 32 MiB
# on Hopper).
CUBLAS = 8 * MIB + 128 * 1024
CUBLAS_HOPPER = 32 * MIB
HOPPER = "9.0"
# Of published peaks 95 % lie between these shares of the predicted ones, `MORE` on top: repeats
# of one run scatter by 14 %, and what cuDNN takes for small batches no rule knows exactly.
LOW, HIGH, MORE = 0.88, 1.19, 64 * MIB
# The median of published peaks over simulated ones: what is loaded late, and not in a tape.
UNSEEN = 1.01
# More than the allocator ever held for a step, over the bytes of its tensors, and besides.
MOST_HELD, MOST_BESIDE = 2.0, 512 * MIB
# A smaller step is played too where it might, packed worse, come to more than a larger one.
PACKED, PACKED_BESIDE = 1.25, 64 * MIB
# MPS keeps freed buffers too, by rules that nobody has published figures for.
OTHER_LOW, OTHER_HIGH = 0.8, 1.4
# The CUDA context with the kernels of PyTorch, cuBLAS and cuDNN as they are loaded: what
# nvidia-smi shows beyond the caching allocator. By compute capability; larger chips keep more.
CONTEXT = Prediction(low=250 * MIB, expected=450 * MIB, high=700 * MIB)
CONTEXTS = {
    "8.0": Prediction(low=350 * MIB, expected=550 * MIB, high=900 * MIB),
    "9.0": Prediction(low=400 * MIB, expected=600 * MIB, high=950 * MIB),
}


def reserved(
    model: ModelProfile, setup: Setup, tensors: Prediction, device: Device | None = None
) -> Prediction:
    """What the CUDA caching allocator holds at its peak. `tensors`: where no tape is known."""
    expected = takes(model, setup, device)
    if expected is None:
        return Prediction(
            low=tensors.low,
            expected=1.06 * tensors.expected + 22 * MIB,
            high=1.15 * tensors.high + 64 * MIB,
        )
    known = device is None or device.kind in ("cpu", "cuda")
    low, high = (LOW, HIGH) if known else (OTHER_LOW, OTHER_HIGH)
    # Small steps are rounded up to whole segments: a line through two of them may rise too fast.
    most = math.inf if _traced(model, setup) else at_most(tensors.high)
    expected = min(expected, most)
    return Prediction(low=low * expected, expected=expected, high=min(high * expected + MORE, most))


def at_most(tensors: float) -> float:
    """More than the allocator can hold for a step, however its tensors of so many bytes may lie."""
    return MOST_HELD * tensors + MOST_BESIDE


def takes(model: ModelProfile, setup: Setup, device: Device | None = None) -> float | None:
    """Reserved bytes at the peak, no one else needing any; None where no tape was traced.

    As simulated where the size was traced, else by those simulated (`memory.as_tensors_grow`); a
    larger size is never said to take less than a smaller one.
    """
    traces = tuple(t for t in model.at(setup.dtype) if t.tape)
    if not traces or setup.shard:  # no tape is of a divided model
        return None

    def played(trace: StepTrace) -> int:
        peak, _ = _played(trace, model.trainable_sizes, *_scene(trace, setup, device))
        return round(UNSEEN * peak)

    def could_reach(trace: StepTrace, peak: int) -> bool:
        tensors = tensor_peak_bytes(model, setup._replace(micro_batch=trace.micro_batch))
        return PACKED * tensors + PACKED_BESIDE > peak

    def found(trace: StepTrace) -> int:
        peak, size = played(trace), trace.micro_batch
        smaller = [t for t in traces if t.micro_batch < size and could_reach(t, peak)]
        return max([peak, *map(played, smaller)])

    line = as_tensors_grow(model, setup, traces, found)
    return line if _traced(model, setup) else max(line, tensor_peak_bytes(model, setup))


def needs(model: ModelProfile, setup: Setup, device: Device | None = None) -> int | None:
    """The smallest cap on reserved bytes that the step runs under; None where not traced.

    To within 2 %. cuDNN does with smaller workspaces where memory is short, which is not
    counted on.
    """
    trace = _traced(model, setup)
    if trace is None or setup.shard:
        return None
    return _least(trace, model.trainable_sizes, *_scene(trace, setup, device))


class Parts(NamedTuple):
    """Of the reserved peak, in bytes: what is asked for at most, cuBLAS's share of it, the rest
    (rounding, and parts of segments that lie idle), and what the step runs under if it must."""

    allocated: int
    cublas: int
    idle: int
    needs: int


def parts(model: ModelProfile, setup: Setup, device: Device | None = None) -> Parts | None:
    """Where the reserved bytes go; None where this size was not traced with its tape."""
    trace, least = _traced(model, setup), needs(model, setup, device)
    if trace is None or least is None:
        return None
    same, scene = _scene(trace, setup, device)
    most, allocated = _played(trace, model.trainable_sizes, same, scene)
    idle = round(UNSEEN * most) - allocated
    return Parts(allocated, sum(scene.workspaces), idle, least)


def _traced(model: ModelProfile, setup: Setup) -> StepTrace | None:
    """The step of that very size, with its tape."""
    size = setup.micro_batch
    return next((t for t in model.at(setup.dtype) if t.tape and t.micro_batch == size), None)


def _scene(trace: StepTrace, setup: Setup, device: Device | None) -> tuple[Setup, Scene]:
    """The settings as far as the simulation asks, and what surrounds the step there."""
    capability = device.compute_capability if device is not None else None
    size = CUBLAS_HOPPER if capability == HOPPER else CUBLAS
    return alike(trace, setup), Scene(workspaces=(size, size))


@functools.lru_cache(maxsize=128)
def _played(
    trace: StepTrace, sizes: tuple[int, ...], setup: Setup, scene: Scene
) -> tuple[int, int]:
    """Peaks of (reserved, allocated) bytes with no cap."""
    allocator = Allocator()
    allocator.run(run_tape(trace, sizes, setup, scene))
    return allocator.reserved_peak, allocator.allocated_peak


@functools.lru_cache(maxsize=32)
def _least(trace: StepTrace, sizes: tuple[int, ...], setup: Setup, scene: Scene) -> int:
    high, low = _played(trace, sizes, setup, scene)
    tape = run_tape(trace, sizes, setup, scene._replace(steps=2))  # later ones need no more
    near = max(LARGE_ROUND, high // 50)
    cap = high - near  # many a step runs under nothing less than it takes
    while high - low > near:
        allocator = Allocator(cap)
        if allocator.run(tape):
            high = min(cap, allocator.reserved_peak)
        else:
            low = cap
        cap = (low + high) // 2
    return high


def context(device: Device | None) -> Prediction:
    """What nvidia-smi shows of a process beyond the caching allocator."""
    capability = device.compute_capability if device is not None else None
    return CONTEXTS.get(capability or "", CONTEXT)


def device_peak(reserved: Prediction, device: Device | None = None) -> Prediction:
    """What nvidia-smi shows of this process: reserved and context."""
    more = context(device)
    return Prediction(
        low=reserved.low + more.low,
        expected=reserved.expected + more.expected,
        high=reserved.high + more.high,
    )
