"""What the loop will ask for: the windows of training steps and the validation set, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotrain.run.cadence import Cadence
from autotrain.run.loading.bucketed import BucketedOrder
from autotrain.run.loading.order import Order


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
