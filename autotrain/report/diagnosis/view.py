"""What the rules of a diagnosis look at: curves of few points, their ends, and the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal, NamedTuple

from autotrain.report.diagnosis.valley import noise
from autotrain.report.progress import monitored
from autotrain.report.result import RunResult
from autotrain.schema import Plan

# Into so many stretches the training curve is cut, and evaluations where there are more.
STRETCHES = 48
# Under so many log points, or evaluations, nothing is said of a curve's course.
POINTS, EVALUATIONS = 10, 3
# What changes by less than this part of itself stands still.
STILL = 0.02
# So little of the first loss is left where the data is learned.
LEARNED = 0.2
HALF = 0.5


Kind = Literal[
    "unstable", "batch_too_large", "starved", "overfitting", "underfitting", "plateau",
    "converged", "improving", "too_short",
]  # fmt: skip


class Change(NamedTuple):
    """A setting that would help: a key of the plan, or an option of its task, and its value."""

    key: str
    value: str


class Finding(NamedTuple):
    """What a run suffers from, or that it does not. `since_epoch`: where that can be told."""

    kind: Kind
    evidence: str
    advice: str
    changes: tuple[Change, ...] = ()
    since_epoch: int | None = None


@dataclass(frozen=True)
class Series:
    """Finite values and their steps; lower is better."""

    steps: Sequence[float]
    values: Sequence[float]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the values around their course."""
        return noise(self.values)

    @cached_property
    def start(self) -> float:
        """The first value."""
        return self.values[0]

    @cached_property
    def end(self) -> float:
        """The mean of the last eighth, two values at least."""
        return fmean(self.values[-max(len(self) // 8, min(len(self), 2)) :])

    @cached_property
    def fall(self) -> float:
        """From the first value to the end."""
        return self.start - self.end

    def part(self, begin: float, end: float = 1.0) -> Sequence[float]:
        """The values between two shares of the way: `part(0.5, 0.75)`."""
        return self.values[round(begin * len(self)) : max(round(end * len(self)), 1)]

    def since(self, step: float) -> Sequence[float]:
        """The values after a step."""
        return [v for s, v in zip(self.steps, self.values, strict=True) if s > step]


def series(steps: Sequence[float], values: Sequence[float], most: int = STRETCHES) -> Series:
    """Means over stretches, `most` of them; what is not finite is left out."""
    if not math.isfinite(sum(values)):
        pairs = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
        steps, values = [s for s, _ in pairs], [v for _, v in pairs]
    every = math.ceil(len(values) / most)
    if every <= 1:
        return Series(steps, values)
    starts = range(0, len(values), every)
    ends = [steps[min(at + every, len(steps)) - 1] for at in starts]
    return Series(ends, [fmean(values[at : at + every]) for at in starts])


@dataclass(frozen=True)
class View:
    """A run, seen by rules."""

    result: RunResult
    plan: Plan

    @cached_property
    def monitor(self) -> str:
        """The figure that decides what is best."""
        return self.result.started.monitor if self.result.started else "loss"

    @cached_property
    def higher(self) -> bool:
        """Whether more of that figure is better."""
        return self.result.started is not None and self.result.started.better == "higher"

    @cached_property
    def trained(self) -> Series:
        """The training loss."""
        points = self.result.points
        return series(points.column("step"), points.column("loss"))

    @cached_property
    def validated(self) -> Series:
        """The validation loss."""
        return self._evaluations([e.loss for e in self.result.evaluations])

    @cached_property
    def figures(self) -> Series:
        """The monitored figure, turned so that lower is better."""
        sign = -1.0 if self.higher else 1.0
        told = self.result.evaluations
        return self._evaluations([sign * monitored(e, self.monitor) for e in told])

    def _evaluations(self, values: Sequence[float]) -> Series:
        return series([e.step for e in self.result.evaluations], values)

    @cached_property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return max(self.result.started.steps_per_epoch if self.result.started else 1, 1)

    @cached_property
    def valid_count(self) -> int:
        """Samples to validate on; 0 where that is not known."""
        return self.result.started.valid_count if self.result.started else 0

    @cached_property
    def whole(self) -> bool:
        """Whether the run went its planned way, or ended it by itself for want of progress."""
        reason = self.result.stopped.reason if self.result.stopped else None
        ended = reason in ("finished", "early_stop")
        return ended or self.result.steps >= self.result.full_steps > 0

    @cached_property
    def rates(self) -> Series:
        """The learning rate over the steps."""
        points = self.result.points
        return series(points.column("step"), points.column("lr"))

    def rate_share(self, step: float) -> float:
        """The learning rate at a step, as a share of its highest."""
        top = max(self.rates.values, default=0.0)
        after = [v for s, v in zip(self.rates.steps, self.rates.values, strict=True) if s >= step]
        rate = after[0] if after else (self.rates.values or [top])[-1]
        return rate / top if top > 0 else 1.0

    @cached_property
    def positive(self) -> bool:
        """Whether the losses are above zero throughout, so that a part of one means something."""
        return min((*self.trained.values, *self.validated.values), default=0.0) > 0

    @cached_property
    def left(self) -> float:
        """What is left of the first loss, in training; NaN where that means nothing."""
        if not self.positive or not len(self.trained):
            return math.nan
        first = max(self.trained.start, *self.validated.values[:1], 0.0)
        return self.trained.end / first
