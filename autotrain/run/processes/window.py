"""What a process does of a window: its own micro-batches, and what they leave to be added up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.run.loading.order import Order
from autotrain.run.meter import Number
from autotrain.run.processes.ranks import Ranks
from autotrain.run.state import Run
from autotrain.run.step import _row, _share, _weight
from autotrain.task import Loss


class LossOf(nn.Module):
    """The task's loss as a module: it is the loss that takes the batch. The model stays bare."""

    run: Run

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.made: Loss | None = None

    def forward(self, batch: Any) -> torch.Tensor:
        """The total; `made` is all of it."""
        self.made = self.run.loss(batch)
        if self.made.mixes:
            _refuse_finer(self.run)
        return self.made.total

    def taken(self) -> Loss:
        """What the last forward pass made, which is kept no longer."""
        loss, self.made = self.made, None
        assert loss is not None
        return loss


def _refuse_finer(run: Run) -> None:
    """A loss that ties samples together is another one over fewer of them."""
    order, planned = run.feed.itinerary.order, run.plan.batch.micro_batch
    if isinstance(order, Order) and order.micro_batch < planned and run.ranks is not None:
        world = run.ranks.world
        raise AutotrainError(
            f"the loss ties the samples of a micro-batch together, and {world} processes would "
            f"cut the plan's micro-batches of {planned} to {order.micro_batch}",
            f"plan for them: `autotrain plan --set batch.world_size={world}`",
        )


@dataclass
class Part:
    """What a rank did of a window: sums by name, of how many micro-batches, and what failed."""

    sums: dict[str, Number] = field(default_factory=dict)
    taken: int = 0
    error: Exception | None = None

    def add(self, loss: Loss) -> None:
        """Count a micro-batch."""
        self.taken += 1
        for name, value in _row(loss, _weight(loss)).items():
            self.sums[name] = self.sums.get(name, 0.0) + value


def expected(ranks: Ranks, window: list[int]) -> Number:
    """What gradients are divided by until the window's weight is known: the same on all ranks.

    Near the weight of the window before, which keeps fp16 in range; a power of two, so that no
    bit of a gradient depends on which. Of the first one, and after one that weighed nothing or
    NaN, its samples.
    """
    usual = float(sum(window))
    before = usual if ranks.weight is None else ranks.weight
    if isinstance(before, torch.Tensor):
        return torch.exp2(torch.round(torch.log2(torch.where(before > 0, before, usual))))
    return float(2.0 ** round(math.log2(before if before > 0 else usual)))


def backward(run: Run, total: torch.Tensor, divisor: Number) -> None:
    """The gradient of total / divisor, scaled for fp16."""
    torch.autograd.backward(total, run.scaler.scale(_share(total, divisor)))


def told(run: Run, part: Part, doing: str) -> tuple[dict[str, Number], dict[str, float]] | None:
    """All meet behind the window: everybody's sums, and what was found; None: asked to stop.

    Raises on all ranks what failed on one. What loaders had to tell goes to rank 0.
    """
    ranks = run.ranks
    assert ranks is not None
    assert ranks.buffers is not None
    flags = {"mixes": run.mixes, "taken": part.taken, "news": len(run.feed.news)}
    met = ranks.meet(part.sums, flags | ranks.buffers.flags(), part.error, doing)
    if met is None:
        return None
    sums, found = met
    run.mixes = found["mixes"] > 0
    ranks.buffers.found(found)
    if found["news"]:
        _exchange(run, ranks)
    if found["taken"]:
        ranks.weight = sums["weight"]
    return sums, found


def _exchange(run: Run, ranks: Ranks) -> None:
    """What loaders had to tell goes to rank 0; samples put aside are so everywhere."""
    for news, aside in ranks.gather((run.feed.news, run.feed.aside.state())):
        run.feed.aside.load(aside)
        if ranks.first and news is not run.feed.news:
            run.feed.news += news
    if not ranks.first:
        run.feed.news.clear()
