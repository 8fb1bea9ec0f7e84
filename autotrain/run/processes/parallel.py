"""A window's gradient when several processes share its micro-batches.

Micro-batch k goes to rank k mod world, with the random numbers that it has in one process. Each
rank adds up the gradients of its own; DistributedDataParallel adds up those of all ranks during
the last backward pass. Before it the ranks have met: the window's weight is known then, so that
pass brings the gradient that one process would have had, to rounding.

A rank that fails within that pass leaves the others waiting for ever. So at first, while memory
may still turn out to be too little, the ranks meet behind it, and a pass over nothing adds up.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autotrain.device import out_of_memory
from autotrain.errors import AutotrainError
from autotrain.run.healing import faults
from autotrain.run.loading.feed import NOTHING
from autotrain.run.loading.order import Order
from autotrain.run.meter import Number
from autotrain.run.processes.ranks import Ranks
from autotrain.run.processes.sharing import Buffers
from autotrain.run.state import Run
from autotrain.run.step import Rows, _not_zero, _row, _share, _weight
from autotrain.task import Loss

# Steps after which what a step of like shapes needs has been seen.
SETTLING = 20


class LossOf(nn.Module):
    """The task's loss as a module: it is the loss that takes the batch. The model stays bare."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model = run.model
        self.run = run
        self.made: Loss | None = None
        # DDP needs a gradient to begin with, and to an optimizer 0 is another than none at all.
        self.nothing = nn.Parameter(torch.zeros((), device=run.device))

    def forward(self, batch: Any) -> torch.Tensor:
        """The total; `made` is all of it. Without a batch 0, whose gradient is 0."""
        if batch is NOTHING:
            return self.nothing * 0.0
        self.made = self.run.loss(batch)
        if self.made.mixes:
            _refuse_finer(self.run)
        return self.made.total


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
class _Part:
    """What a rank did of a window before all met: sums by name, and its last total."""

    sums: dict[str, Number] = field(default_factory=dict)
    total: torch.Tensor | None = None
    taken: int = 0
    expected: Number = 1.0
    error: Exception | None = None


def accumulate(run: Run, window: list[int]) -> tuple[Rows, Number, None] | None:
    """Gradients of the window, divided by its weight already; a row of its sums; its weight.

    The same on all ranks. None: asked to stop. Raises on all ranks what failed on one.
    """
    ranks, doing = run.ranks, f"step {run.state.step + 1}"
    assert ranks is not None
    network, buffers = _network(run, ranks)
    careful = run.state.step < ranks.careful_until
    part = _own(run, network, ranks.mine(len(window)), careful=careful)
    flags = {"mixes": run.mixes, "taken": part.taken, "news": len(run.feed.news)}
    try:
        met = ranks.meet(part.sums, flags | buffers.flags(), part.error, doing)
    except BaseException:
        _drop(ranks)
        raise
    if met is None:
        _drop(ranks)
        return None
    sums, found = met
    run.mixes = found["mixes"] > 0
    buffers.found(found)
    if found["news"]:
        _exchange(run, ranks)
    if not found["taken"]:
        _drop(ranks)
        return [], 0.0, None
    weight = _not_zero(sums["weight"])
    gradients = [p.grad for p in run.parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, part.expected * ranks.world / weight)
    _backward(run, ranks, part, weight / ranks.world)
    return [sums], sums["weight"], None


def _own(run: Run, network: DistributedDataParallel, mine: range, *, careful: bool) -> _Part:
    """All of a rank's share but the pass that adds up; an error stays inside."""
    part = _Part()
    try:
        for number in mine:
            adds_up = number == mine[-1] and not careful
            _one(run, network, part, number, len(mine), adds_up=adds_up)
        if part.total is None:
            part.total = network(NOTHING)
    except Exception as error:
        part.error = error
    return part


def _one(
    run: Run, network: DistributedDataParallel, part: _Part, number: int, count: int, *,
    adds_up: bool,
) -> None:  # fmt: skip
    """A micro-batch forward, and backward too but for the pass that adds up."""
    taken = run.feed.take(run.state.step // run.cadence.steps_per_epoch)
    if taken is NOTHING:
        return
    batch = run.form.batch(taken)
    run.draws.before(run.state.step, number)
    with nullcontext() if adds_up else network.no_sync():
        total = network(batch)
    module = network.module
    assert isinstance(module, LossOf)
    assert module.made is not None
    loss, module.made = module.made, None
    weight = _weight(loss)
    if not part.taken:
        part.expected = _not_zero(weight) * count
    part.taken += 1
    for name, value in _row(loss, weight).items():
        part.sums[name] = part.sums.get(name, 0.0) + value
    if adds_up:
        part.total = total
    else:
        torch.autograd.backward(total, run.scaler.scale(_share(total, part.expected)))


def _backward(run: Run, ranks: Ranks, part: _Part, weight: Number) -> None:
    """The last backward pass, in which gradients of all ranks are added up.

    DDP forms the mean over the ranks: `weight` is the window's over their number.
    """
    assert part.total is not None
    try:
        torch.autograd.backward(part.total, run.scaler.scale(_share(part.total, weight)))
    except RuntimeError as error:
        if out_of_memory(error):
            # The others wait for gradients that never come: nothing is healed from here.
            raise faults.explained(error, f"step {run.state.step + 1}") from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ranks.lost() from error
        raise


def _exchange(run: Run, ranks: Ranks) -> None:
    """What loaders had to tell goes to rank 0; samples put aside are so everywhere."""
    for news, aside in ranks.gather((run.feed.news, run.feed.aside.state())):
        run.feed.aside.load(aside)
        if ranks.first and news is not run.feed.news:
            run.feed.news += news
    if not ranks.first:
        run.feed.news.clear()


def _network(run: Run, ranks: Ranks) -> tuple[DistributedDataParallel, Buffers]:
    """The loss in DDP, made anew for other parameters; the model's buffers, as rank 0 has them."""
    network, buffers = ranks.network, ranks.buffers
    trained = [id(parameter) for parameter in run.parameters]
    if network is None or buffers is None or ranks.trained != trained:
        ranks.network = network = _made(run)
        ranks.buffers = buffers = Buffers(run.model)
        ranks.trained, ranks.careful_until = trained, run.state.step + _settling(run)
    buffers.follow()
    assert isinstance(network, DistributedDataParallel)
    return network, buffers


def _settling(run: Run) -> int:
    """In how many steps memory has shown what it needs: each bucket's largest batch comes once."""
    order = run.feed.itinerary.order
    return SETTLING if order.lengths is None else max(SETTLING, order.steps_per_epoch)


def _drop(ranks: Ranks) -> None:
    """DDP waits for the backward pass of a forward pass that it saw; none will come."""
    ranks.network = None
    gc.collect()  # its hooks go with it


def _made(run: Run) -> DistributedDataParallel:
    """DDP that asks nothing of a model: any step may leave any parameter out.

    Weights become those of rank 0. What it would do about buffers, Buffers does.
    """
    if run.plan.model.compile:
        import torch._dynamo

        torch._dynamo.config.optimize_ddp = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DistributedDataParallel(
            LossOf(run),
            broadcast_buffers=False,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
