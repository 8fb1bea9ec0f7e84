"""A window's gradient when several processes share its micro-batches.

Micro-batch k goes to rank k mod world, with the random numbers that it has in one process. Each
rank adds up the gradients of its own; DistributedDataParallel adds up those of all ranks during
the last backward pass. Behind it the ranks meet: the window's weight is known then, and one
factor makes the gradient that one process would have had, to rounding.

Nobody waits for anybody before that. A rank that fails still adds up whatever lies where its
gradients should be, so that the others get to the place where all are told, and none commits.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autotrain.run.healing import faults
from autotrain.run.loading.feed import NOTHING
from autotrain.run.meter import Number
from autotrain.run.processes.ranks import Ranks
from autotrain.run.processes.sharing import Buffers
from autotrain.run.processes.window import LossOf, Part, backward, expected, told
from autotrain.run.state import Run
from autotrain.run.step import Rows, _not_zero

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


class LossOrNothing(LossOf):
    """As LossOf; without a batch 0, whose gradient is 0."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.model)
        self.run = run
        # DDP needs a gradient to begin with, and to an optimizer 0 is another than none at all.
        self.nothing = nn.Parameter(torch.zeros((), device=run.device))

    def forward(self, batch: Any) -> torch.Tensor:
        """The total, or 0."""
        return self.nothing * 0.0 if batch is NOTHING else super().forward(batch)


class Adding:
    """Adds gradients up over all ranks, one bucket of DDP's after the other.

    Each rank has to ask for every sum: `finish` asks for those that its backward pass did not
    get to. After the last bucket DDP adds up how many ranks used each parameter.
    """

    def __init__(self, network: LossOf) -> None:
        count = sum(parameter.requires_grad for parameter in network.parameters())
        self.used = torch.zeros(count, dtype=torch.int32, device=network.run.device)
        self.buckets: list[torch.Tensor] = []
        self.begun = 0

    def add(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        """DDP's hook: the bucket's sum over all ranks."""
        values = bucket.buffer()
        self.buckets[bucket.index() : bucket.index() + 1] = [values]
        self.begun = bucket.index() + 1
        work = dist.all_reduce(values, async_op=True)
        assert work is not None
        future: torch.futures.Future[list[torch.Tensor]] = work.get_future()
        return future.then(lambda made: made.value()[0])

    def finish(self) -> None:
        """What is added up means nothing by now."""
        rest = self.buckets[self.begun :]
        for values in [*rest, self.used] if rest else ():
            dist.all_reduce(values)


def accumulate(run: Run, window: list[int]) -> tuple[Rows, Number, Number] | None:
    """Gradients of the window, its weight, and what they are to be multiplied with.

    The same on all ranks. None: asked to stop. Raises on all ranks what failed on one.
    """
    ranks, doing = run.ranks, f"step {run.state.step + 1}"
    assert ranks is not None
    network, adding = _network(run, ranks)
    part, divisor = Part(), expected(ranks, window)
    try:
        _own(run, network, part, ranks.mine(len(window)), divisor)
    except Exception as error:
        part.error = error
    try:
        if part.error is not None:
            with ranks.meeting():
                adding.finish()
        met = told(run, part, doing)
    except BaseException:
        _drop(ranks)
        raise
    if met is None:
        _drop(ranks)
        return None
    sums, found = met
    if not found["taken"]:
        return [], 0.0, 1.0
    return [sums], sums["weight"], divisor / _not_zero(sums["weight"])


def _own(
    run: Run, network: DistributedDataParallel, part: Part, mine: range, divisor: Number
) -> None:
    """A rank's share. In its last backward pass, or one of nothing, all ranks' are added up."""
    adds_up = False
    for number in mine:
        taken = run.feed.take(run.state.step // run.cadence.steps_per_epoch)
        if taken is NOTHING:
            continue
        batch, adds_up = run.form.batch(taken), number == mine[-1]
        run.draws.before(run.state.step, number)
        with nullcontext() if adds_up else network.no_sync():
            total = network(batch)
        module = network.module
        assert isinstance(module, LossOf)
        part.add(module.taken())
        backward(run, total, divisor)
    if not adds_up:
        torch.autograd.backward(network(NOTHING))


def _network(run: Run, ranks: Ranks) -> tuple[DistributedDataParallel, Adding]:
    """The loss in DDP, made anew for other parameters; the model's buffers, as rank 0 has them."""
    trained = [id(parameter) for parameter in run.parameters]
    if ranks.network is None or ranks.buffers is None or ranks.trained != trained:
        try:
            ranks.network = _made(run)
        except (RuntimeError, ValueError) as error:  # the others wait in there: not to be healed
            raise faults.explained(error, f"step {run.state.step + 1}") from error
        ranks.buffers, ranks.trained = Buffers(run.model), trained
    ranks.buffers.follow()
    network, adding = ranks.network
    adding.begun = 0
    return network, adding


def _drop(ranks: Ranks) -> None:
    """DDP waits for the rest of a pass that was broken off; none will come."""
    ranks.network = None
    gc.collect()  # its hooks go with it


def _made(run: Run) -> tuple[DistributedDataParallel, Adding]:
    """DDP that asks nothing of a model: any step may leave any parameter out.

    Weights become those of rank 0. What it would do about buffers, Buffers does. A pass over
    nothing shows its buckets.
    """
    if run.plan.model.compile:
        from torch._dynamo import config

        config.optimize_ddp = False
    loss = LossOrNothing(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = DistributedDataParallel(
            loss,
            broadcast_buffers=False,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
    adding = Adding(loss)
    network.register_comm_hook(None, lambda _state, bucket: adding.add(bucket))
    torch.autograd.backward(network(NOTHING))
    return network, adding
