"""Operators of many kinds and sizes, timed one by one: what a machine is slow and fast at.

Small layers of every sort run forward and backward once; each operator that this calls is kept
with its arguments and then timed by itself, in turns, on one thread and on all. A step's time is
put together from these by `plan/pricing.py`, for models that nobody here has seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from autotrain.malloc import keep_freed
from autotrain.probe.trace.flops import flops_of
from autotrain.probe.trace.values import tensors_in
from autotrain.probe.trace.work import VIEW, work
from autotrain.probe.zoo import Pool, by_bytes, products
from autotrain.schema import OVERHEAD, Dtype, Timing, Work

ROUNDS = 3
# One burst is at least so long, so that the clock's own cost is lost in it.
BURST_SECONDS, MOST_CALLS = 200e-6, 50
# What a step leaves behind it before an operator's output comes round again in the caches.
RING_BYTES = 48 << 20
# What is smaller was just made by the operator before, and is at hand.
HOT_BYTES = 256 << 10


@dataclass(frozen=True)
class Hollow:
    """A tensor without its numbers."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Call(NamedTuple):
    """An operator with the arguments it was called with, large ones hollow."""

    func: Any
    args: Any
    kwargs: dict[str, Any]
    work: Work


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """Keeps one call of each sort."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[tuple[Any, Work], Call] = {}
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        outputs = tensors_in(out)
        if outputs or func._schema.is_mutable:
            self.count += 1
            if not getattr(func, "is_view", False):
                made = work(
                    func, args, flops_of(func, args, kwargs, out), tensors_in((args, kwargs)),
                    outputs,
                )  # fmt: skip
                if (func, made) not in self.calls:
                    args, kwargs = tree_map(_hollowed, (args, kwargs))
                    self.calls[func, made] = Call(func, args, kwargs, made)
        return out


def measure(threads: Sequence[int], dtypes: Sequence[Dtype], seconds: float) -> tuple[Timing, ...]:
    """Timings on so many threads each, all together in about `seconds`."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(max(threads))
        keep_freed()  # as a run does
        pool = Pool()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            calls, found = _calls(pool, dtypes), []
            for many in threads:
                torch.set_num_threads(many)
                found += _timed(calls, pool, many, seconds / len(threads))
        return tuple(found)
    finally:
        torch.set_num_threads(before)


def _calls(pool: Pool, dtypes: Sequence[Dtype]) -> list[Call]:
    """Each operator of the zoo once; in bf16 as well, as autocast makes them."""
    recorder = _Recorder()
    for layer, inputs in (*products(pool), *by_bytes(pool)):
        _run(recorder, layer, inputs)
    if "bf16" in dtypes:
        with torch.autocast("cpu", torch.bfloat16):
            for layer, inputs in products(pool):
                _run(recorder, layer, inputs)
            for layer, inputs in by_bytes(pool):
                # Scales and shifts stay as they are, as autocast leaves them.
                halves = [t.bfloat16() if t.dim() > 1 else t for t in inputs]
                _run(recorder, layer, [t.detach() for t in halves])
    return [call for call in recorder.calls.values() if call.work.bytes > 0]


def _run(recorder: _Recorder, layer: Callable[..., torch.Tensor], inputs: list[Any]) -> None:
    """Forward and backward; what a layer brings along learns as well."""
    wanted = [tensor.requires_grad_() for tensor in inputs]
    with recorder:
        out = layer(*wanted)
        torch.autograd.backward(out, torch.ones_like(out))


def _timed(calls: list[Call], pool: Pool, threads: int, seconds: float) -> list[Timing]:
    """Rounds over all calls, one at least; the least disturbed burst of each counts."""
    deadline = time.perf_counter() + seconds
    tiny = _overhead_step()
    with torch.no_grad():
        nothing = asking()
        taken = [_burst(call, 1, pool) for call in calls]
        for number in range(ROUNDS):
            for place, call in enumerate(calls):
                if number and time.perf_counter() > deadline:
                    break
                many = min(max(int(BURST_SECONDS / taken[place]), 1), MOST_CALLS)
                taken[place] = min(taken[place], _burst(call, many, pool))
    rows = [
        Timing(w.kind, w.dtype, threads, w.flops, w.bytes, w.shape, beyond(nothing, best))
        for (_, _, _, w), best in zip(calls, taken, strict=True)
    ]
    each = min(tiny() for _ in range(5))
    rows.append(Timing(OVERHEAD, "", threads, 0.0, 0.0, (), each))
    return rows


def _hollowed(value: Any) -> Any:
    real = isinstance(value, torch.Tensor) and value.is_floating_point()
    if not real or value.nbytes < HOT_BYTES or value.layout != torch.strided:
        return value
    return Hollow(tuple(value.shape), tuple(value.stride()), value.dtype)


def _given(call: Call, pool: Pool) -> tuple[Any, Any]:
    """The call's own arguments, hollow ones filled from somewhere in the pool."""

    def other(value: Any) -> Any:
        full = isinstance(value, Hollow)
        return pool.like(value.sizes, value.strides, value.dtype) if full else value

    made: tuple[Any, Any] = tree_map(other, (call.args, call.kwargs))
    return made


def beyond(nothing: float, taken: float) -> float:
    """What an operator takes beside being asked for, which its step pays anyway."""
    return max(taken - nothing, 1e-8)


def _burst(call: Call, times: int, pool: Pool) -> float:
    """Seconds a call, each with other numbers."""
    return burst(call.func, [_given(call, pool) for _ in range(times)], call.work.bytes)


def burst(func: Any, given: Sequence[tuple[Any, Any]], size: float) -> float:
    """Seconds a call, one for each (args, kwargs), that moves `size` bytes.

    Outputs live on for a while, as they do in a step.
    """
    ring: deque[Any] = deque(maxlen=max(1, min(int(RING_BYTES / max(size, 1.0)), 64)))
    begun = time.perf_counter()
    for args, kwargs in given:
        ring.append(func(*args, **kwargs))
    return (time.perf_counter() - begun) / len(given)


def asking() -> float:
    """Seconds that any call takes before it does anything: a step's overhead has it already."""
    given: list[tuple[Any, Any]] = [((torch.ones(4),), {})] * 500
    return min(burst(torch.ops.aten.alias.default, given, VIEW.bytes) for _ in range(5))


def _overhead_step() -> Callable[[], float]:
    """Seconds an operator, of a step whose operators have next to nothing to compute."""
    layers = [nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()) for _ in range(8)]
    model, inputs = nn.Sequential(*layers), torch.ones(4, 8)
    recorder = _Recorder()
    with recorder, torch.enable_grad():
        model(inputs).sum().backward()

    def step() -> float:
        begun = time.perf_counter()
        with torch.enable_grad():
            for _ in range(5):
                model(inputs).sum().backward()
        return (time.perf_counter() - begun) / 5 / recorder.count

    step()
    return step
