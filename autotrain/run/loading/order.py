"""Which samples form which step: a pure function of (seed, epoch).

An epoch's order is cut into windows of global_batch samples, a window into micro-batches. The
last window is ragged: it is never dropped, and its gradient is that of the samples it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import torch

from autotrain.run.seeds import ORDER, mixed

POOL_WINDOWS = 50


def cut(count: int, most: int, *, no_single: bool = False) -> list[int]:
    """Sizes of at most `most` that add up to `count`, all full but the last.

    `no_single` (BatchNorm cannot train on one sample): a last size of 1 is evened out with the
    one before, where that one has at least two to spare.
    """
    full, rest = divmod(count, most)
    sizes = [most] * full + ([rest] if rest else [])
    if no_single and rest == 1 and full and most > 2:
        sizes[-2:] = [most + 1 - (most + 1) // 2, (most + 1) // 2]
    return sizes


@dataclass(frozen=True, eq=False)
class Order:
    """The windows of every epoch over `count` samples.

    `lengths` (float64 [count], a cost per sample) turns bucketing on: samples of like length
    share a micro-batch, which spares padding; windows are then shuffled, so that long ones do
    not cluster.
    """

    count: int
    global_batch: int
    micro_batch: int
    seed: int
    no_single: bool = False
    lengths: torch.Tensor | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Windows in an epoch, the ragged one included."""
        return -(-self.count // self.global_batch)

    def window(self, step: int) -> list[list[int]]:
        """The micro-batches, as sample indices, of the step that `step` others went before."""
        order, start, end = self._span(step)
        samples: list[int] = order[start:end].tolist()
        return [samples[a:b] for a, b in pairwise(accumulate(self.sizes(step), initial=0))]

    def sizes(self, step: int) -> list[int]:
        """How many samples each of those micro-batches has."""
        _, start, end = self._span(step)
        return cut(end - start, self.micro_batch, no_single=self.no_single)

    def _span(self, step: int) -> tuple[torch.Tensor, int, int]:
        epoch, number = divmod(step, self.steps_per_epoch)
        order, edges = _epoch(self, epoch)
        return order, edges[number], edges[number + 1]


def dealt(micro_batch: int, global_batch: int, world: int, *, no_single: bool = False) -> int:
    """The micro-batch of which each of `world` processes gets as many: at most `micro_batch`.

    Full windows only; where a plan was made for so many processes it is `micro_batch` itself.
    """
    if world == 1:
        return micro_batch
    rounds = -(-global_batch // (micro_batch * world))
    return min(max(-(-global_batch // (rounds * world)), 2 if no_single else 1), micro_batch)


def in_micro_batches(
    count: int, micro_batch: int, lengths: torch.Tensor | None = None
) -> list[Sequence[int]]:
    """0 .. count-1 in micro-batches: how a validation set is read, always in the same order.

    By `lengths` (float64 [count]), where they are known: samples of like length share one, and the
    longest come first, as shorter ones fit into the memory that they leave.
    """
    if lengths is None:
        return [range(a, min(a + micro_batch, count)) for a in range(0, count, micro_batch)]
    order = torch.argsort(lengths, descending=True, stable=True)
    return [part.tolist() for part in torch.split(order, micro_batch)]


# Loader workers read ahead, so around the end of an epoch two orders are in use.
@lru_cache(maxsize=4)
def _epoch(order: Order, epoch: int) -> tuple[torch.Tensor, list[int]]:
    """Sample indices [count] and where each window starts (and the last one ends)."""
    generator = torch.Generator().manual_seed(mixed(order.seed, ORDER, epoch))
    shuffled = torch.randperm(order.count, generator=generator)
    sizes = cut(order.count, order.global_batch, no_single=order.no_single)
    if order.lengths is None:
        return shuffled, list(accumulate(sizes, initial=0))
    lengths = order.lengths
    pools = torch.split(shuffled, POOL_WINDOWS * order.global_batch)
    ordered = torch.cat([p[torch.argsort(lengths[p], stable=True)] for p in pools])
    windows = torch.split(ordered, sizes)
    turn = torch.randperm(len(windows), generator=generator).tolist()
    edges = accumulate((len(windows[i]) for i in turn), initial=0)
    return torch.cat([windows[i] for i in turn]), list(edges)
