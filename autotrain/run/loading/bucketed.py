"""Which samples form which step where lengths are known and a plan has buckets of them.

Every micro-batch is of one bucket, and has no more samples than that bucket's size. Micro-batches
of all buckets are shuffled, and the epoch is cut into windows at the places nearest to equal
shares of its items (the sum of lengths). So every epoch has the same number of steps, whatever
its order, and no window is a rest.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import torch

from autotrain.run.seeds import ORDER, mixed
from autotrain.schema import Bucket

# Within a bucket, samples of like length come together: each part of so many micro-batches is
# sorted, but no more than a quarter of the bucket, so that the same ones meet rarely.
SORTED, LEAST_PARTS = 50, 4


@dataclass(frozen=True, eq=False)
class BucketedOrder:
    """The windows of every epoch. `lengths`: float64 [count], what each sample costs.

    `no_single`: a bucket that holds a single sample is joined with its neighbour, because
    BatchNorm cannot train on one. `split`: each micro-batch is taken in so many parts.
    """

    lengths: torch.Tensor
    buckets: tuple[Bucket, ...]
    target_items: float
    seed: int
    no_single: bool = False
    split: int = 1

    @cached_property
    def groups(self) -> list[tuple[torch.Tensor, int]]:
        """Sample indices of each bucket, and how many of them share a micro-batch."""
        return grouped(self.lengths, self.buckets, no_single=self.no_single)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Windows in an epoch: the nearest number to its items / target, none without samples."""
        made = sum(math.ceil(len(group) / size) for group, size in self.groups)
        steps = round(math.fsum(self.lengths.tolist()) / self.target_items)
        return min(max(steps, 1), made)

    def window(self, step: int) -> list[list[int]]:
        """The micro-batches, as sample indices, of the step that `step` others went before."""
        order, edges, first, last = self._span(step)
        made = (order[a:b] for a, b in pairwise(edges[first : last + 1]))
        return [part.tolist() for m in made for part in torch.split(m, self._parts(len(m)))]

    def sizes(self, step: int) -> list[int]:
        """How many samples each of those micro-batches has."""
        _, edges, first, last = self._span(step)
        made = (b - a for a, b in pairwise(edges[first : last + 1]))
        return [size for count in made for size in self._parts(count)]

    def _parts(self, count: int) -> list[int]:
        parts = min(self.split, max(count // 2, 1) if self.no_single else count)
        return even(count, -(-count // parts))

    def in_turn(self, lengths: torch.Tensor) -> list[Sequence[int]]:
        """Samples of those lengths, the longest first, each bucket in its micro-batches."""
        batches: list[Sequence[int]] = []
        for group, size in reversed(grouped(lengths, self.buckets)):
            ordered = group[torch.argsort(lengths[group], descending=True, stable=True)]
            parts = (n for many in even(len(ordered), size) for n in self._parts(many))
            batches += [part.tolist() for part in torch.split(ordered, [*parts])]
        return batches

    def _span(self, step: int) -> tuple[torch.Tensor, list[int], int, int]:
        epoch, number = divmod(step, self.steps_per_epoch)
        order, edges, windows = _epoch(self, epoch)
        return order, edges, windows[number], windows[number + 1]


def even(count: int, most: int) -> list[int]:
    """Sizes of at most `most` that add up to `count`: as few as may be, and as even."""
    parts = -(-count // most)
    size, more = divmod(count, max(parts, 1))
    return [size + 1] * more + [size] * (parts - more)


def size_of(length: float, buckets: tuple[Bucket, ...]) -> int:
    """Samples in a micro-batch whose longest is that long.

    Beyond the last bucket, as if memory grew with the square of the length, as attention's does.
    """
    for end, size in buckets:
        if length <= end:
            return size
    end, size = buckets[-1]
    return max(int(size * (end / length) ** 2), 1)


def grouped(
    lengths: torch.Tensor, buckets: tuple[Bucket, ...], *, no_single: bool = False
) -> list[tuple[torch.Tensor, int]]:
    """(indices, size) of each bucket that has samples, short ones first.

    What is longer than the last bucket forms buckets of its own, by the size it allows.
    """
    order = torch.argsort(lengths, stable=True)
    ordered = lengths[order]
    ends = torch.tensor([end for end, _ in buckets], dtype=ordered.dtype)
    cuts = [0, *torch.searchsorted(ordered, ends, right=True).tolist()]
    start, beyond = cuts[-1], [size_of(x, buckets) for x in ordered[cuts[-1] :].tolist()]
    cuts += [start + i for i, (a, b) in enumerate(pairwise(beyond), 1) if a != b]
    cuts = sorted({*cuts, len(ordered)})
    if no_single:
        cuts = _without_singles(cuts)
    return [
        (torch.sort(order[a:b]).values, size_of(float(ordered[b - 1]), buckets))
        for a, b in pairwise(cuts)
    ]


def _without_singles(cuts: list[int]) -> list[int]:
    """A single sample joins the next longer ones; the very longest takes one with it."""
    kept = [0]
    for cut in cuts[1:-1]:
        if cut - kept[-1] > 1:
            kept.append(cut)
    if len(kept) > 1 and cuts[-1] - kept[-1] == 1:
        kept[-1] -= 1
        if kept[-1] - kept[-2] == 1:
            del kept[-1]
    return [*kept, cuts[-1]]


# Loader workers read ahead, so around the end of an epoch two orders are in use.
@lru_cache(maxsize=4)
def _epoch(order: BucketedOrder, epoch: int) -> tuple[torch.Tensor, list[int], list[int]]:
    """Sample indices [count]; where each micro-batch starts; at which one each window starts."""
    generator = torch.Generator().manual_seed(mixed(order.seed, ORDER, epoch))
    parts: list[torch.Tensor] = []
    for group, size in order.groups:
        shuffled = group[torch.randperm(len(group), generator=generator)]
        parts += _micro_batches(shuffled, size, order.lengths)
    turn = torch.randperm(len(parts), generator=generator).tolist()
    edges = list(accumulate((len(parts[i]) for i in turn), initial=0))
    samples = torch.cat([parts[i] for i in turn])
    items = [0.0, *order.lengths[samples].cumsum(0)[torch.tensor(edges[1:]) - 1].tolist()]
    return samples, edges, _windows(items, order.steps_per_epoch)


def _micro_batches(
    shuffled: torch.Tensor, most: int, lengths: torch.Tensor
) -> Sequence[torch.Tensor]:
    """Cut evenly, after sorting part by part."""
    sizes = even(len(shuffled), most)
    pool = min(max(len(sizes) // LEAST_PARTS, 1), SORTED)
    pools = [sum(sizes[i : i + pool]) for i in range(0, len(sizes), pool)]
    if pool > 1:
        chunks = torch.split(shuffled, pools)
        shuffled = torch.cat([c[torch.argsort(lengths[c], stable=True)] for c in chunks])
    return torch.split(shuffled, sizes)


def _windows(items: list[float], steps: int) -> list[int]:
    """Where each window starts, and the last one ends: nearest to equal shares of the items.

    `items`: those before each micro-batch, and all. Every window has a micro-batch at least.
    """
    last, starts = len(items) - 1, [0]
    for number in range(1, steps):
        wanted = items[-1] * number / steps
        above = bisect_left(items, wanted)
        nearest = above if items[above] - wanted <= wanted - items[above - 1] else above - 1
        starts.append(min(max(nearest, starts[-1] + 1), last - (steps - number)))
    return [*starts, last]
