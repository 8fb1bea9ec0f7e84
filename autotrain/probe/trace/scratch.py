"""Bytes that operators use inside on this CPU: weights reordered, copies cast, sums per thread.

They depend on the library, the instruction set and the threads, so no formula is kept: where an
operator's inside may make a step's peak, that operator runs once, for real and by itself, and the
allocator is asked. It takes inputs of the traced shapes, or, where that would take long, of two
smaller micro-batches, between which its bytes grow along a line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from autotrain.probe.trace.rules import INSIDE
from autotrain.probe.trace.tape import inserted
from autotrain.schema import Device, StepTrace

# What one run of an operator may cost, and all runs for one trace; tens of milliseconds.
_RUN_FLOPS, _RUN_BYTES = 3e9, 96 << 20
_TRACE_FLOPS, _TRACE_BYTES, _TRACE_RUNS = 24e9, 1 << 30, 64
# What an operator may use inside, in the worst case: this many times what goes in and out, and
# a little more; once its kind has been measured twice, this many times what was found there.
_BOUND, _BOUND_MORE, _LIKE = 2.0, 1 << 20, 1.5
# An inside that could raise the peak by less than this share is let go.
_WORTH = 2e-4
# Whose operators may run by themselves. Anyone else's may mean something by the numbers it gets.
_HOUSES = ("aten", "torchvision", "torchaudio")
# They only move or fill; or have a formula of their own.
_PLAIN = ("_to_copy", "clone", "copy_", "detach", "alias", "fill", "zero", "bernoulli", "empty")


class Shape(NamedTuple):
    """A tensor without its data."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Call(NamedTuple):
    """One operator of a traced step: what it got, and when."""

    func: Any
    leaves: tuple[Any, ...]
    tree: Any
    place: int  # on the tape, after its outputs were born
    live: int  # bytes alive then
    flops: float
    moved: int  # bytes in and out, a convolution's weights as oneDNN pads them

    def kind(self) -> tuple[Any, ...]:
        """Calls of one kind use about as much for each byte that they move."""
        shapes = [leaf for leaf in self.leaves if isinstance(leaf, Shape)]
        single = tuple(tuple(size == 1 for size in shape.sizes[1:]) for shape in shapes)
        return self.func, single, tuple(shape.dtype for shape in shapes)


@functools.cache
def may_use(func: Any, name: str) -> bool:
    """Whether an operator is of a kind that may allocate inside."""
    house, _, rest = name.partition(".")
    if house not in _HOUSES or name in INSIDE or getattr(func, "is_view", False):
        return False
    return not rest.startswith(_PLAIN)


def call(
    func: Any, args: Any, kwargs: Any, tensors: Sequence[torch.Tensor], place: int, live: int,
    flops: float,
) -> Call | None:  # fmt: skip
    """A call worth remembering; `tensors` are its inputs and outputs.

    What works number by number allocates only where it casts an input.
    """
    if len({t.dtype for t in tensors}) == 1 and torch.Tag.pointwise in func.tags:
        return None
    if any(t.layout != torch.strided for t in tensors):
        return None
    leaves, tree = pytree.tree_flatten((args, kwargs))
    shapes = tuple(_shape(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
    moved = sum(t.numel() * t.element_size() for t in tensors) + _padding(func, leaves)
    return Call(func, shapes, tree, place, live, flops, moved)


def _shape(tensor: torch.Tensor) -> Shape:
    return Shape(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)


def _padding(func: Any, leaves: list[Any]) -> int:
    """oneDNN keeps a grouped convolution's weights in blocks of 16 x 16 channels a group."""
    backward = func is torch.ops.aten.convolution_backward.default
    if not backward and func is not torch.ops.aten.convolution.default:
        return 0
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    weight = tensors[2 if backward else 1].shape
    groups = [leaf for leaf in leaves if type(leaf) is int][-1]
    if groups == 1:
        return 0
    blocks = -(-weight[0] // groups // 16) * -(-weight[1] // 16)
    return int(4 * 256 * groups * blocks * math.prod(weight[2:]))


@dataclass
class Scratch:
    """Measures what a tracer's operators use inside. `threads`: those of the run to come."""

    threads: int | None = None
    known: dict[tuple[Any, ...], dict[int, list[Call]]] = field(default_factory=dict)

    def added(self, made: StepTrace, calls: list[Call]) -> StepTrace:
        """The trace with the inside bytes that may matter on its tape and in its peaks."""
        traced = self.known.setdefault((made.dtype, made.length, made.form), {})
        traced[made.micro_batch] = calls
        purse = _Purse()
        bounds = (*made.marks[1:], len(made.tape) + 1)
        peaks = (made.peak_bytes, made.accumulate_peak_bytes, made.evaluate_peak_bytes)
        found: dict[int, int] = {}
        for phase, peak in enumerate(peaks):
            # An evaluation's peak counts only where it is above the first micro-batch's.
            floor = max(peak, peaks[0]) if phase == 2 else peak
            within = range(bounds[phase], bounds[phase + 1])
            inside = [n for n, c in enumerate(calls) if c.place in within]
            inside.sort(key=lambda n: -(calls[n].live + _BOUND * calls[n].moved))
            for number in inside:
                each = calls[number]
                if each.live + purse.most(each) <= floor * (1 + _WORTH):
                    continue
                size = self._size(made.micro_batch, number, traced, purse)
                purse.learn(each, size)
                found[each.place] = max(size, found.get(each.place, 0))
                floor = max(floor, each.live + size)
        return inserted(made, {place: size for place, size in found.items() if size > 0})

    def _size(
        self, micro_batch: int, number: int, traced: dict[int, list[Call]], purse: _Purse
    ) -> int:
        """Bytes that the call of that number uses inside."""
        whole = traced[micro_batch][number]
        if _affordable(whole, 1.0):
            return purse.spent(whole, 1.0, functools.partial(measured, threads=self.threads))
        high = micro_batch // 2
        while high > 1 and not _affordable(whole, high / micro_batch):
            high //= 2
        low = high // 2
        one = _at(max(low, 1), micro_batch, number, traced)
        other = _at(high, micro_batch, number, traced)
        if high < 1 or one is None or other is None:
            return 0
        run = functools.partial(measured, threads=self.threads)
        a = purse.spent(one, max(low, 1) / micro_batch, run)
        if low < 1:  # one sample is all that can be run: no line, but no less than it
            return a * micro_batch
        b = purse.spent(other, high / micro_batch, run)
        return max(b + (b - a) * (micro_batch - high) // (high - low), 0)


class _Purse:
    """What may still be spent on running operators for one trace, and what they taught."""

    def __init__(self) -> None:
        self.flops, self.bytes, self.runs = _TRACE_FLOPS, float(_TRACE_BYTES), _TRACE_RUNS
        self.ratios: dict[tuple[Any, ...], list[float]] = {}

    def spent(self, call: Call, share: float, run: Callable[..., int]) -> int:
        """Run a call and pay for it; 0 where nothing is left."""
        if self.flops <= 0 or self.bytes <= 0 or self.runs <= 0:
            return 0
        self.flops -= call.flops * share
        self.bytes -= call.moved * share
        self.runs -= 1
        return run(call.func, call.leaves, call.tree)

    def learn(self, call: Call, size: int) -> None:
        """Remember what a call of that kind used for each byte it moved."""
        self.ratios.setdefault(call.kind(), []).append(size / max(call.moved, 1))

    def most(self, call: Call) -> float:
        """The most that a call may use inside."""
        known = self.ratios.get(call.kind(), [])
        if len(known) < 2:
            return _BOUND * call.moved + _BOUND_MORE
        return _LIKE * max(known) * call.moved


def _affordable(call: Call, share: float) -> bool:
    return call.flops * share <= _RUN_FLOPS and call.moved * share <= _RUN_BYTES


def _at(size: int, micro_batch: int, number: int, traced: dict[int, list[Call]]) -> Call | None:
    """A call as it would be at another micro-batch; None where no two traces tell."""
    here = traced[micro_batch]
    for other, calls in traced.items():
        if other == micro_batch or len(calls) != len(here):
            continue
        there = calls[number]
        if there.func is not here[number].func or there.tree != here[number].tree:
            continue
        leaves = [
            _between(a, b, other, micro_batch, size)
            for a, b in zip(there.leaves, here[number].leaves, strict=True)
        ]
        if None not in [x for x, y in zip(leaves, there.leaves, strict=True) if y is not None]:
            return here[number]._replace(leaves=tuple(leaves))
    return None


def _between(a: Any, b: Any, low: int, high: int, size: int) -> Any:
    """An argument, along the line through two micro-batches; None where it is on no line."""
    if isinstance(a, Shape) and isinstance(b, Shape):
        sizes = [_between(*x, low, high, size) for x in zip(a.sizes, b.sizes, strict=True)]
        strides = [_between(*x, low, high, size) for x in zip(a.strides, b.strides, strict=True)]
        whole = None not in sizes and None not in strides and a.dtype == b.dtype
        return Shape(tuple(sizes), tuple(strides), a.dtype) if whole else None
    if type(a) is int and type(b) is int:
        slope, rest = divmod(b - a, high - low)
        there = a + slope * (size - low)
        return there if rest == 0 and (there >= 0 or a == b) else None
    return a if a == b else None


@functools.lru_cache(maxsize=4096)
def measured(func: Any, leaves: tuple[Any, ...], tree: Any, threads: int | None) -> int:
    """Most bytes that one real run allocates beyond what it leaves; 0 where it refuses to run."""
    before = torch.get_num_threads()
    try:
        with _disable_current_modes(), torch.no_grad():
            own = str(func).startswith("aten.")
            filled = [_filled(x, any_=own) if isinstance(x, Shape) else x for x in leaves]
            args, kwargs = pytree.tree_unflatten(filled, tree)
            if threads is not None:
                torch.set_num_threads(threads)
            return _allocated(lambda: func(*args, **kwargs))
    except Exception:
        return 0
    finally:
        torch.set_num_threads(before)


def _filled(shape: Shape, *, any_: bool) -> torch.Tensor:
    """Any numbers will do where `any_`, but an index has to be in range: zero is.

    torchvision has indices among its floating-point numbers too, and looks at none of them twice.
    """
    make = torch.empty_strided(shape.sizes, shape.strides, dtype=shape.dtype)
    real = shape.dtype.is_floating_point or shape.dtype.is_complex
    return make if any_ and real else make.zero_()


def _allocated(run: Callable[[], Any]) -> int:
    """The peak of the CPU allocator during `run`, less what is alive after it."""
    torch.autograd._enable_profiler_legacy(_memory_only())  # type: ignore[attr-defined]
    try:
        kept = run()
    finally:
        threads: Any = torch.autograd._disable_profiler_legacy()  # type: ignore[attr-defined]
    del kept
    now = peak = 0
    for events in threads:
        for event in events:
            if event.kind() == "memory_alloc":
                now += event.cpu_memory_usage()
                peak = max(peak, now)
    return int(peak - now)


@functools.cache
def _memory_only() -> Any:
    """torch's older profiler, which starts in microseconds; the newer one takes 60 ms a time."""
    profiler: Any = torch._C._profiler
    return profiler.ProfilerConfig(
        profiler.ProfilerState.CPU, False, True, False, False, False,
        profiler._ExperimentalConfig(),
    )  # fmt: skip


def runs_here(device: Device | None) -> bool:
    """Whether a step is to run on a CPU, so that this one can tell what operators use."""
    return device is None or device.kind == "cpu"
