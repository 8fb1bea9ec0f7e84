"""Gradients added up by DistributedDataParallel, within the last backward pass of a window."""

from __future__ import annotations

import gc
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autotrain.run.loading.feed import NOTHING
from autotrain.run.processes.window import LossOf
from autotrain.run.state import Run

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


class _LossOrNothing(LossOf):
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
    get to. After the last bucket DDP adds up how many ranks used each parameter. Any step may
    leave any parameter out. Weights become those of rank 0.
    """

    def __init__(self, run: Run) -> None:
        if run.plan.model.compile:
            from torch._dynamo import config

            config.optimize_ddp = False
        self.loss = _LossOrNothing(run)
        count = sum(parameter.requires_grad for parameter in self.loss.parameters())
        self.used = torch.zeros(count, dtype=torch.int32, device=run.device)
        self.buckets: list[torch.Tensor] = []
        self.begun, self.ended = 0, False
        self.network: DistributedDataParallel | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.network = DistributedDataParallel(
                self.loss,
                broadcast_buffers=False,  # see sharing.Buffers
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
        self.network.register_comm_hook(None, lambda _state, bucket: self._add(bucket))
        self.end()  # a pass over nothing shows the buckets

    def _add(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        """DDP's hook: the bucket's sum over all ranks."""
        values = bucket.buffer()
        self.buckets[bucket.index() : bucket.index() + 1] = [values]
        self.begun = bucket.index() + 1
        work = dist.all_reduce(values, async_op=True)
        assert work is not None
        future: torch.futures.Future[list[torch.Tensor]] = work.get_future()
        return future.then(lambda made: made.value()[0])

    def begin(self) -> None:
        """A window begins."""
        self.begun, self.ended = 0, False

    def total(self, batch: Any, *, last: bool) -> torch.Tensor:
        """The loss of a micro-batch; in the backward pass of the last all ranks' are added up."""
        assert self.network is not None
        self.ended = last
        with nullcontext() if last else self.network.no_sync():
            made: torch.Tensor = self.network(batch)
        return made

    def end(self) -> None:
        """Of a window in which no backward pass was the last."""
        if not self.ended:
            torch.autograd.backward(self.total(NOTHING, last=True))

    def finish(self) -> None:
        """Where this rank failed: what is added up means nothing by now."""
        rest = self.buckets[self.begun :]
        for values in [*rest, self.used] if rest else ():
            dist.all_reduce(values)

    def done(self) -> None:
        """All have met: the sums are where the gradients were."""

    def close(self) -> None:
        """DDP waits for the rest of a pass that was broken off; none will come."""
        self.network = None
        gc.collect()  # its hooks go with it
