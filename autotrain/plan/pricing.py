"""Seconds of a traced step's operators, from a machine's timings of operators like them.

An operator that works through bytes takes what its kind took for so many, along straight lines
between the sizes that were timed. A product takes a time per FLOP between those of the products
most like it in shape, what works on planes of pictures a time per byte. Distances in shape are in
doublings of each dimension.
"""

from __future__ import annotations

import functools
import heapq
import math
from bisect import bisect_left
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from autotrain.schema import OVERHEAD, Timing, Work

_FREE = ("view", "call")  # but for the overhead
# The neighbours in shape that count, and how fast a neighbour's say falls with its distance.
NEIGHBOURS, FALL = 4, 4.0
# On more threads than were timed, time falls with this power of their number.
SCALING = 0.85
# Sizes within this factor are taken together.
ALIKE = 8.0
# Steps whose sums are kept: a plan asks for those of a few traces again and again.
MOST_SUMS = 512
# What stands in where a kind was not timed.
_LIKE = {
    "depthwise": "convolution",
    "depthwise_backward": "convolution_backward",
    "attention_backward": "attention",
    "rnn_backward": "rnn",
    "sort": "special",
    "ctc": "softmax",
    "random": "special",
}
_LAST, _MOVED = "elementwise", "copy"


class _Shaped(NamedTuple):
    shape: tuple[float, ...]  # logarithms to base 2
    rate: float  # natural logarithm of the seconds a FLOP; a byte, where nothing is multiplied


class _Table(NamedTuple):
    """What one kind took in one dtype: by shape, or by bytes through `sizes` and `times`."""

    shaped: tuple[_Shaped, ...]
    sizes: tuple[float, ...]
    times: tuple[float, ...]


class _Same:
    """Equal to itself alone: a key for what is large and never changes."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


class Prices:
    """A device's timings in order, to be asked by kind. `threads`: on how many they were made."""

    def __init__(self, timings: Sequence[Timing]) -> None:
        grouped: dict[tuple[str, str, int], list[Timing]] = {}
        for timing in timings:
            grouped.setdefault((timing.kind, timing.dtype, timing.threads), []).append(timing)
        self.threads = tuple(sorted({timing.threads for timing in timings}))
        self.tables = {key: _table(group) for key, group in grouped.items()}
        self.known: dict[tuple[Work, int], float] = {}
        self.sums: dict[tuple[_Same, int], tuple[float, float]] = {}

    def nearest(self, threads: int) -> int:
        """Of the numbers of threads that were timed, the nearest to so many."""
        return min(self.threads, key=lambda many: abs(many - threads))

    def seconds(self, work: Sequence[Work], threads: int, times: float = 1.0) -> float:
        """All the work, one operator after the other, on so many threads.

        `times`: as if each operator had so many times as much to do.
        """
        if threads in self.threads:
            return self._seconds(work, threads, times)
        least, most = self.threads[0], self.threads[-1]
        slow = self._seconds(work, least, times)
        if least == most:
            asked = self._overhead(work, least)
            return asked + (slow - asked) * math.pow(least / threads, SCALING)
        # What runs side by side shrinks with the threads, the rest stays.
        fast = self._seconds(work, most, times)
        shared = (slow - fast) / (1 / least - 1 / most)
        taken = slow - shared / least + shared / threads
        # Those timed may have had more caches too, and gained more than threads alone give.
        return max(taken, fast * min(most / threads, 1.0))

    def _seconds(self, work: Sequence[Work], threads: int, times: float) -> float:
        key = _Same(work), threads
        if key not in self.sums:
            if len(self.sums) >= MOST_SUMS:
                self.sums.clear()
            alone = (e.calls * self.one(e, threads) for e in work if e.kind not in _FREE)
            self.sums[key] = math.fsum(alone), self._overhead(work, threads)
        own, asking = self.sums[key]
        return times * own + asking

    def _overhead(self, work: Sequence[Work], threads: int) -> float:
        return self.overhead(threads) * math.fsum(e.calls for e in work)

    def overhead(self, threads: int) -> float:
        """Seconds to ask for an operator: Python, torch's dispatcher and autograd."""
        found = self.tables.get((OVERHEAD, "", self.nearest(threads)))
        return found.times[0] if found else 0.0

    def one(self, work: Work, threads: int) -> float:
        """Seconds of one call on as many threads as were timed."""
        key = work._replace(calls=1), threads
        if key not in self.known:
            self.known[key] = self._one(work, threads)
        return self.known[key]

    def _one(self, work: Work, threads: int) -> float:
        table = self._like(work.kind, work.dtype, threads)
        if table is None:
            return 0.0
        alike = [each for each in table.shaped if len(each.shape) == len(work.shape)]
        if not alike:
            return _by_bytes(work.bytes, table)
        rate = _rate(work.shape, alike)
        if not work.flops:
            return work.bytes * rate
        moved = self._like(_MOVED, work.dtype, threads)
        return max(work.flops * rate, _by_bytes(work.bytes, moved) if moved else 0.0)

    def _like(self, kind: str, dtype: str, threads: int) -> _Table | None:
        for close in (kind, _LIKE.get(kind, _LAST), _LAST):
            for same in (dtype, "fp32"):
                found = self.tables.get((close, same, threads))
                if found is not None:
                    return found
        return None


def _table(timings: list[Timing]) -> _Table:
    """Operators of about one size count as one, which takes what the middle one of them does."""
    shaped = tuple(
        _Shaped(_logarithms(t.shape), math.log(t.seconds / (t.flops or t.bytes)))
        for t in timings
        if t.shape
    )
    grouped: dict[int, list[Timing]] = {}
    for timing in timings:
        size = round(math.log(timing.bytes, ALIKE)) if timing.bytes > 0 else -1
        grouped.setdefault(size, []).append(timing)
    sizes, times = [], []
    for _, group in sorted(grouped.items()):
        sizes.append(math.exp(sum(math.log(max(t.bytes, 1)) for t in group) / len(group)))
        times.append(sizes[-1] * median(t.seconds / max(t.bytes, 1) for t in group))
    return _Table(shaped, tuple(sizes), tuple(times))


def _by_bytes(size: float, table: _Table) -> float:
    """Along straight lines through the sizes; beyond them at the nearest one's rate."""
    sizes, times = table.sizes, table.times
    place = bisect_left(sizes, size)
    if place == 0:
        return times[0] * size / sizes[0]
    if place == len(sizes):
        return times[-1] * size / sizes[-1]
    share = (size - sizes[place - 1]) / (sizes[place] - sizes[place - 1])
    return times[place - 1] + share * (times[place] - times[place - 1])


def _rate(shape: tuple[int, ...], alike: Sequence[_Shaped]) -> float:
    """Seconds per FLOP or byte, between those nearest in shape: their geometric mean."""
    place = _logarithms(shape)
    near = heapq.nsmallest(NEIGHBOURS, ((math.dist(place, a.shape), a.rate) for a in alike))
    weights = [1 / (distance**FALL + 1e-3) for distance, _ in near]
    total = math.fsum(w * rate for w, (_, rate) in zip(weights, near, strict=True))
    return math.exp(total / math.fsum(weights))


def _logarithms(shape: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(math.log2(max(side, 1)) for side in shape)


@functools.lru_cache(maxsize=16)
def _prices(timings: _Same) -> Prices:
    return Prices(timings.value)


def prices(timings: tuple[Timing, ...]) -> Prices:
    """The same prices for the same timings: what was worked out once is kept."""
    return _prices(_Same(timings))
