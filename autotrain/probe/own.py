"""A traced step's own operators, timed one by one: what no table of other operators tells.

Each sort of call in the step is made again, for real and by itself, with other numbers. What came
back in every call (the weights of a recurrent cell), or was made just before it, is the same tensor
each time, and so is in the caches; the rest is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from autotrain.probe.timings import BURST_SECONDS, MOST_CALLS, asking, beyond, burst
from autotrain.probe.trace.examples import Example, Hollow
from autotrain.probe.zoo import Pool
from autotrain.schema import Timing, Work

ROUNDS = 4
# What would take more than this, in tensors or on its own, is left to the table.
MOST_BYTES = 1 << 30
# Less than this share of the step is not worth a burst.
LEAST_SHARE = 0.002


def measure(
    examples: Sequence[Example], threads: int, seconds: float, priced: dict[Work, float]
) -> tuple[Timing, ...]:
    """Timings of the examples' work on so many threads, the costliest first, in about `seconds`.

    `priced`: what each work is thought to take in all, in seconds. Two operators of equal work
    give it their mean, by their calls. What fails by itself is left out.
    """
    before, deadline = torch.get_num_threads(), time.perf_counter() + seconds
    found: dict[Work, list[tuple[int, float]]] = {}
    try:
        torch.set_num_threads(threads)
        with _disable_current_modes(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            pool, nothing = Pool(), asking()
            for example in _costliest(examples, priced):
                if time.perf_counter() > deadline:
                    break
                taken = _best(example, pool, deadline)
                if taken is not None:
                    seconds_each = beyond(nothing, taken)
                    found.setdefault(example.work, []).append((example.calls, seconds_each))
    finally:
        torch.set_num_threads(before)
    return tuple(_timing(work, threads, parts) for work, parts in found.items())


def _timing(work: Work, threads: int, parts: list[tuple[int, float]]) -> Timing:
    calls = sum(count for count, _ in parts)
    mean = sum(count * taken for count, taken in parts) / calls
    return Timing(work.kind, work.dtype, threads, work.flops, work.bytes, work.shape, mean)


def _costliest(examples: Sequence[Example], priced: dict[Work, float]) -> list[Example]:
    """Those of a work together, and none that cannot matter."""
    total = sum(priced.values())
    worth = [e for e in examples if priced.get(e.work, 0.0) > LEAST_SHARE * total]
    return sorted(worth, key=lambda e: -priced[e.work])


def _best(example: Example, pool: Pool, deadline: float) -> float | None:
    """Seconds a call: the least disturbed of a few bursts."""
    size = sum(_bytes(leaf) for leaf in example.leaves if isinstance(leaf, Hollow))
    if max(size, example.work.bytes) > MOST_BYTES:
        return None
    try:
        best = burst(example.func, _given(example, 1, pool), example.work.bytes)
        for _ in range(ROUNDS):
            many = min(max(int(BURST_SECONDS / best), 1), MOST_CALLS)
            given = _given(example, many, pool)
            best = min(best, burst(example.func, given, example.work.bytes))
            if time.perf_counter() > deadline:
                break
    except Exception:
        return None
    return best


def _given(example: Example, times: int, pool: Pool) -> list[tuple[Any, Any]]:
    """Arguments for so many calls: of each tensor as many different ones as the step had."""
    columns: list[list[Any]] = []
    for place, leaf in enumerate(example.leaves):
        if isinstance(leaf, Hollow):
            cold = 1 - example.near.get(place, 0) / max(example.calls, 1)
            share = min(len(example.others.get(place, ())) / max(example.calls, 1), cold)
            count = min(max(round(share * times), 1), times)
            made = [_filled(leaf, pool) for _ in range(count)]
            columns.append([made[n % count] for n in range(times)])
        else:
            columns.append([leaf] * times)
    rows = zip(*columns, strict=True) if columns else [()] * times
    return [pytree.tree_unflatten([*row], example.tree) for row in rows]


def _filled(hollow: Hollow, pool: Pool) -> torch.Tensor:
    """Ordinary numbers; an index is 0, which is always in range."""
    if hollow.dtype.is_floating_point:
        return pool.like(hollow.sizes, hollow.strides, hollow.dtype)
    return torch.empty_strided(hollow.sizes, hollow.strides, dtype=hollow.dtype).zero_()


def _bytes(hollow: Hollow) -> int:
    size = 1 + sum((n - 1) * step for n, step in zip(hollow.sizes, hollow.strides, strict=True))
    return size * hollow.dtype.itemsize
