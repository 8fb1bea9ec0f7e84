"""A model whose samples differ in length, seen as if they all had one: the curve's other axis.

Steps are traced at a few lengths. Between two of them a step is taken to lie on the straight
line: exact where it grows linearly (recurrence, convolution), above the truth where it grows
faster (attention), and never below it.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from autotrain.schema import Bucket, Dtype, LengthProfile, ModelProfile, StepTrace, Work

_BYTES = (
    "peak_bytes",
    "accumulate_peak_bytes",
    "evaluate_peak_bytes",
    "batch_bytes",
    "untouched_bytes",
)
_WORK = ("matmul_flops", "convolution_flops", "moved_bytes")
_CALLS = ("work", "evaluate_work")
_Size = tuple[Dtype, int]
# How a run sorts a bucket: in parts of so many micro-batches, in so many parts at least.
SORTED, LEAST_PARTS = 50, 4


class Piece(NamedTuple):
    """Micro-batches of an epoch that are alike: how many, their samples, and the mean length."""

    batches: int
    micro_batch: int
    length: float


def at_length(model: ModelProfile, length: float) -> ModelProfile:
    """The model as if every sample were so long. 0, or nothing known of lengths: the longest.

    A length that was traced at two sizes of micro-batch is given back as it was traced.
    """
    known = sorted({trace.length for trace in model.traces})
    if model.lengths is None or length <= 0 or length >= known[-1] > 0:
        return model
    traces = [trace for size in _sizes(model) for trace in _at(model, size, length)]
    return model.model_copy(update={"traces": tuple(traces)}) if traces else model


def traced_lengths(model: ModelProfile, dtype: Dtype) -> tuple[float, ...]:
    """Lengths traced at two sizes of micro-batch at least, rising: each has a line of its own."""
    same, sizes = "fp32" if dtype == "tf32" else dtype, dict[float, set[int]]()
    for trace in model.traces:
        if trace.dtype == same:
            sizes.setdefault(trace.length, set()).add(trace.micro_batch)
    return tuple(sorted(length for length, found in sizes.items() if len(found) > 1))


def share_below(lengths: LengthProfile, start: float, end: float) -> tuple[float, float]:
    """Of the samples longer than `start` and up to `end`: (share of all, mean length)."""
    points = lengths.points
    within = points[bisect_right(points, start) : bisect_right(points, end)]
    share = len(within) / len(points)
    return share, (math.fsum(within) / len(within) if within else end)


def edges(lengths: LengthProfile, most: int, waste: float) -> tuple[float, ...]:
    """Lengths of samples, the longest last, to round the others up to: the fewest, up to `most`.

    Few enough that rounding up adds no more than `waste` of the result, and the best of that
    number: dynamic programming over at most 64 candidates.
    """
    points = lengths.points
    ranks = sorted({round(i * (len(points) - 1) / 63) for i in range(64)})
    ends = sorted({points[rank] for rank in ranks} - {0.0})
    sums, counts = _running(points, ends)
    best: list[tuple[float, tuple[int, ...]]] = [
        (ends[j] * counts[j + 1], (j,)) for j in range(len(ends))
    ]
    chosen = best[-1]
    for _ in range(most - 1):
        if 1.0 - sums[-1] / chosen[0] <= waste:
            break
        best = [
            min([best[j], *((best[i][0] + ends[j] * (counts[j + 1] - counts[i + 1]),
                             (*best[i][1], j)) for i in range(j))])
            for j in range(len(ends))
        ]  # fmt: skip
        chosen = best[-1]
    return tuple(ends[j] for j in chosen[1])


def along(known: Mapping[float, float], done: Mapping[float, float], length: float) -> float:
    """What takes so long at the `known` lengths, at another, by how much is `done` at each.

    That lies on the parabola through the three nearest: exact where it grows with the length and
    its square. Between two of them the time goes from the one's to the other's as that does; beyond
    it is as many times the nearest one's, below the shortest no less than in proportion. So it
    never falls where a known one rises.
    """
    near = sorted(done, key=lambda each: abs(each - length))[:3]
    amount = math.fsum(
        done[one] * math.prod((length - other) / (one - other) for other in near if other != one)
        for one in near
    )
    below = max((each for each in known if each <= length), default=None)
    above = min((each for each in known if each >= length), default=None)
    if below is None or above is None:
        end = min(known) if below is None else max(known)
        times = amount / done[end] if done[end] else 1.0
        least, most = (length / end, 1.0) if below is None else (1.0, math.inf)
        return known[end] * min(max(times, least), most)
    more = done[above] - done[below]
    share = min(max((amount - done[below]) / more, 0.0), 1.0) if more else 0.0
    return known[below] + share * (known[above] - known[below])


def _running(points: tuple[float, ...], ends: list[float]) -> tuple[list[float], list[int]]:
    """Sums and counts of the points up to each end, from nothing on."""
    sums, counts, place, total = [0.0], [0], 0, 0.0
    for end in ends:
        while place < len(points) and points[place] <= end:
            total += points[place]
            place += 1
        sums.append(total)
        counts.append(place)
    return sums, counts


def expected_longest(
    lengths: LengthProfile, start: float, end: float, drawn: int, together: int = 1
) -> float:
    """Mean length of the longest of `drawn` samples, out of those over `start` and up to `end`.

    `together`: so many times as many are drawn, sorted, and cut into as many groups; the mean
    over these. The last one's is exact, the others' are where they end among all.
    """
    points = lengths.points
    within = points[bisect_right(points, start) : bisect_right(points, end)]
    if not within:
        return end
    count = len(within)
    chances = [(rank / count) ** (drawn * together) for rank in range(count + 1)]
    last = math.fsum(p * (b - a) for p, (a, b) in zip(within, pairwise(chances), strict=True))
    ends = [within[group * count // together] for group in range(1, together)]
    return (last + math.fsum(ends)) / together


def pieces(lengths: LengthProfile, parts: tuple[Bucket, ...], count: int) -> tuple[Piece, ...]:
    """What an epoch of `count` samples is cut into: each bucket as evenly as a run cuts it."""
    made, below, before = list[Piece](), 0.0, 0
    for start, end, micro in _spans(lengths, parts):
        share, mean = share_below(lengths, start, end)
        below += share
        held = round(below * count) - before
        before += held
        batches = math.ceil(held / micro)
        size, more = divmod(held, max(batches, 1))
        cut = ((more, size + 1), (batches - more, size))
        made += [Piece(many, each, mean) for many, each in cut if many]
    return tuple(made)


def padding(lengths: LengthProfile, parts: tuple[Bucket, ...], count: int = 0) -> float:
    """The share of padding in what is computed: each micro-batch is as long as its longest.

    `count` samples, those of a bucket sorted part by part as a run does; 0: drawn by chance.
    """
    padded = 0.0
    for start, end, micro in _spans(lengths, parts):
        share = share_below(lengths, start, end)[0]
        batches = math.ceil(share * count / micro)
        together = min(max(batches // LEAST_PARTS, 1), SORTED)
        padded += share * expected_longest(lengths, start, end, micro, together)
    return max(1.0 - math.fsum(lengths.points) / len(lengths.points) / padded, 0.0)


def _spans(lengths: LengthProfile, parts: tuple[Bucket, ...]) -> Iterator[tuple[float, float, int]]:
    """(over this length, up to this one, micro_batch): what is longer joins the last."""
    start = -1.0
    for place, (end, micro) in enumerate(parts):
        last = place + 1 == len(parts)
        yield start, max(end, lengths.maximum) if last else end, micro
        start = end


def _sizes(model: ModelProfile) -> list[_Size]:
    return sorted({(trace.dtype, trace.micro_batch) for trace in model.traces})


def _at(model: ModelProfile, size: _Size, length: float) -> list[StepTrace]:
    """The step of that size at that length: as traced, or between its neighbours; or none."""
    line = {t.length: t for t in model.traces if (t.dtype, t.micro_batch) == size}
    enough = length in traced_lengths(model, size[0])
    if length in line and enough:
        return [line[length]]
    below = [known for known in line if known <= length]
    above = [known for known in line if known >= length]
    if enough or not above:
        return []
    if not below:
        return [_shorter(line[min(above)], length)]
    return [_between(line[max(below)], line[min(above)], length)]


def _between(a: StepTrace, b: StepTrace, length: float) -> StepTrace:
    if a.length == b.length:
        return a
    share = (length - a.length) / (b.length - a.length)

    def line(one: float, other: float) -> float:
        return one + share * (other - one)

    changed: dict[str, float] = {
        name: math.ceil(line(getattr(a, name), getattr(b, name))) for name in (*_BYTES, "ops")
    }
    changed |= {name: line(getattr(a, name), getattr(b, name)) for name in _WORK}
    tape = b.tape
    if _alike(a, b):
        pairs = zip(a.tape, b.tape, strict=True)
        tape = tuple([math.ceil(x + share * (y - x)) if x >= 0 else x for x, y in pairs])
    calls = {name: _calls(getattr(a, name), getattr(b, name), share) for name in _CALLS}
    return b.model_copy(update={**changed, **calls, "tape": tape, "length": length})


@functools.lru_cache(maxsize=256)
def _alike(a: StepTrace, b: StepTrace) -> bool:
    """Whether the same storages die in the same order, and only their sizes differ."""
    if a.marks != b.marks or len(a.tape) != len(b.tape):
        return False
    pairs = zip(a.tape, b.tape, strict=True)
    return all(x == y or (x >= 0 and y >= 0) for x, y in pairs)


def _calls(a: tuple[Work, ...], b: tuple[Work, ...], share: float) -> tuple[Work, ...]:
    """Some of the one step's calls and some of the other's: it costs what lies between."""
    parts = ((a, 1 - share), (b, share))
    return tuple([
        Work(kind, dtype, part * calls, flops, moved, shape)
        for each, part in parts
        for kind, dtype, calls, flops, moved, shape in each
    ])  # fmt: skip


def _shorter(trace: StepTrace, length: float) -> StepTrace:
    """Below the shortest that was traced: no fewer bytes, and work in proportion."""
    share = length / trace.length
    work = {name: share * getattr(trace, name) for name in _WORK}
    calls = {name: _calls((), getattr(trace, name), share) for name in _CALLS}
    return trace.model_copy(update={**work, **calls, "length": length})
