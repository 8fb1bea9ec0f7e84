"""What the loop will ask for: the windows of training steps and the validation set, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autotrain.run.cadence import Cadence
from autotrain.run.loading.bucketed import BucketedOrder
from autotrain.run.loading.data import Split
from autotrain.run.loading.order import Order, dealt, in_micro_batches
from autotrain.schema import Plan


class Request(NamedTuple):
    """Samples of one micro-batch: of `epoch` of the training set, or (None) for validation.

    `step`: how many steps went before.
    """

    epoch: int | None
    indices: Sequence[int]
    step: int = 0


@dataclass
class Itinerary:
    """What the loop will ask for, from `step` on, up to and including `last`.

    `evaluated` is the step of the last evaluation made, so that none is repeated or left out.
    `valid` is the validation set in micro-batches, always in the same order. `share`: this
    process is asked for the n-th of every so many micro-batches.
    """

    order: Order | BucketedOrder
    cadence: Cadence
    valid: list[Sequence[int]]
    last: int
    step: int = 0
    evaluated: int = 0
    share: tuple[int, int] = (0, 1)

    def __iter__(self) -> Iterator[Request]:
        """The requests of every evaluation that is due and every window, in turn."""
        mine = slice(self.share[0], None, self.share[1])
        for step in range(self.step, self.last + 1):
            if step != self.evaluated and (self.cadence.evaluates(step) or step == self.last):
                yield from (Request(None, indices, step) for indices in self.validation()[mine])
            if step < self.last:
                epoch = step // self.cadence.steps_per_epoch
                yield from (
                    Request(epoch, indices, step) for indices in self.order.window(step)[mine]
                )

    def validation(self) -> list[Sequence[int]]:
        """The validation set's micro-batches."""
        return self.valid


def refuses_one(model: nn.Module) -> bool:
    """Whether it cannot train on one sample."""
    return any(isinstance(m, _BatchNorm) and m.training for m in model.modules())


def ordered(
    plan: Plan, parts: Split, model: nn.Module, *, world: int = 1
) -> tuple[Order | BucketedOrder, list[Sequence[int]]]:
    """The order of the training samples, and the validation set's micro-batches."""
    batch, seed, lengths = plan.batch, plan.run.seed, parts.lengths
    no_single = refuses_one(model)
    split = batch.split or 1
    micro = -(-batch.micro_batch // split)
    known = None if lengths is None else parts.valid_lengths
    if lengths is None or batch.buckets is None or batch.target_items is None:
        each = dealt(micro, batch.global_batch, world, no_single=no_single)
        order = Order(parts.train_count, batch.global_batch, each, seed, no_single, lengths)
        return order, in_micro_batches(parts.valid_count, micro, known)
    bucketed = BucketedOrder(lengths, batch.buckets, batch.target_items, seed, no_single, split)
    if known is None:
        return bucketed, in_micro_batches(parts.valid_count, micro)
    return bucketed, bucketed.in_turn(known)
