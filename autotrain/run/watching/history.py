"""What the red flags look at: the last log points and evaluations, as plain numbers.

It is a part of RunState and so of every checkpoint: a resumed run goes on watching the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from autotrain.events import Evaluated, Step
from autotrain.schema import Number, Whole

# So many log points and evaluations are kept, and losses of the first steps.
KEPT, FIRST = 64, 20
T = TypeVar("T")


@dataclass
class History:
    """Lists in the order of time, of log points up to `lr`, then of evaluations.

    `first`: losses of the very first steps; `waits`: the share of the time that steps waited for
    data; `rates`: samples a second; `slowed`: why the GPU held its clock down, or nothing.
    `trained` is the mean training loss since the evaluation before, by weight; `figures` what
    decides which evaluation is best, lower is better; `measured` the newest evaluation's measures,
    each with how often in a row it was suspicious. `told`: the flags that are up.
    """

    first: list[Number] = field(default_factory=list)
    steps: list[Whole] = field(default_factory=list)
    losses: list[Number] = field(default_factory=list)
    norms: list[Number] = field(default_factory=list)
    seconds: list[Number] = field(default_factory=list)
    waits: list[Number] = field(default_factory=list)
    rates: list[Number] = field(default_factory=list)
    slowed: list[str] = field(default_factory=list)
    celsius: Number | None = None
    others: Number | None = None
    peak_bytes: Whole = 0
    lr: Number = 0.0
    evaluated: list[Whole] = field(default_factory=list)
    trained: list[Number] = field(default_factory=list)
    losses_valid: list[Number] = field(default_factory=list)
    figures: list[Number] = field(default_factory=list)
    measured: dict[str, list[Number]] = field(default_factory=dict)
    loss_sum: Number = 0.0
    weight_sum: Number = 0.0
    told: list[str] = field(default_factory=list)

    def copied(self) -> dict[str, Any]:
        """As plain data that shares no list with it."""
        own = {k: [*held] if isinstance(held, list) else held for k, held in vars(self).items()}
        return {**own, "measured": {name: [*held] for name, held in self.measured.items()}}

    def log(self, point: Step, window: int, first: Iterable[float]) -> None:
        """Take a log point in, of `window` steps. What is not finite is healing's business; a step
        without a time was not like the others.
        """
        self.first = [*self.first, *filter(math.isfinite, first)][:FIRST]
        self.peak_bytes, self.lr = point.peak_bytes, point.lr
        self.celsius, self.others = point.gpu_celsius, point.others_cpu
        if not math.isfinite(point.loss):
            return
        self.loss_sum += point.loss * point.weight
        self.weight_sum += point.weight
        if point.step_seconds <= 0 or not math.isfinite(point.grad_norm):
            return
        _keep(self.steps, point.step)
        _keep(self.losses, point.loss)
        _keep(self.norms, point.grad_norm)
        _keep(self.seconds, point.step_seconds)
        _keep(self.waits, min(point.wait_seconds / point.step_seconds, 1.0))
        _keep(self.rates, point.samples / (window * point.step_seconds))
        _keep(self.slowed, point.gpu_slowed or "")

    def evaluate(self, event: Evaluated, figure: float, suspicious: Mapping[str, bool]) -> None:
        """Take an evaluation in; `figure` so that lower is better."""
        for name, bad in suspicious.items():
            streak = self.measured.get(name, [0.0, 0.0])[1]
            self.measured[name] = [event.metrics[name], streak + 1 if bad else 0.0]
        trained = self.trained[-1] if self.trained else math.nan  # no log point in between
        if self.weight_sum > 0:
            trained = self.loss_sum / self.weight_sum
        if not all(map(math.isfinite, (event.loss, figure, trained))):
            return
        self.loss_sum = self.weight_sum = 0.0
        _keep(self.evaluated, event.step)
        _keep(self.trained, trained)
        _keep(self.losses_valid, event.loss)
        _keep(self.figures, figure)


def _keep(values: list[T], value: T) -> None:
    values.append(value)
    del values[:-KEPT]
