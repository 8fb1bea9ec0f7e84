"""The learning rate: a pure function of the step, except plateau, which watches evaluations.

Every schedule warms up linearly: step n of the first `warmup_steps` runs at lr x n / warmup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autotrain.errors import UsageError
from autotrain.schema import ScheduleSection

PLATEAU_THRESHOLD = 1e-4
NEEDS = {
    "plateau": ("factor", "patience"),
    "exponential": ("factor", "period_steps"),
    "cosine_restarts": ("period_steps",),
}


@dataclass
class Schedule:
    """The rate of each step of a run of `total_steps`. `best`, `bad` and `cuts` are plateau's.

    Raises UsageError with every key that the named schedule needs and the plan leaves out.
    """

    section: ScheduleSection
    lr: float
    total_steps: int
    better: Literal["lower", "higher"] = "lower"
    best: float | None = None
    bad: int = 0
    cuts: int = 0

    def __post_init__(self) -> None:
        name = self.section.name
        missing = [key for key in NEEDS.get(name, ()) if getattr(self.section, key) is None]
        if missing:
            raise UsageError(*(f"schedule.{key}: missing; {name} needs it" for key in missing))

    def at(self, step: int) -> float:
        """The rate of the step that `step` others went before (so the first is 0)."""
        warmup = self.section.warmup_steps
        if step < warmup:
            return self.lr * (step + 1) / warmup
        return max(self.lr * self._share(step - warmup), self._floor())

    def _floor(self) -> float:
        """`min_lr`, where the peak is not below it; a constant rate stays what it is."""
        return min(self.section.min_lr or 0.0, self.lr)

    def _share(self, after: int) -> float:
        """Share of the peak, `after` steps after the warm-up."""
        section, low = self.section, self._floor() / self.lr
        match section.name:
            case "constant":
                return 1.0
            case "cosine":
                whole = max(self.total_steps - section.warmup_steps, 1)
                return _cosine(min(after / whole, 1.0), low)
            case "cosine_restarts":
                period = section.period_steps or 1
                return _cosine(after % period / period, low)
            case "plateau":
                return float((section.factor or 1.0) ** self.cuts)
            case "exponential":
                return float((section.factor or 1.0) ** (after / (section.period_steps or 1)))
            case "inverse_sqrt":
                warmup = max(section.warmup_steps, 1)
                return math.sqrt(warmup / (after + warmup))

    def observe(self, figure: float) -> None:
        """Tell plateau the monitored figure of an evaluation; the others do not listen.

        As torch's ReduceLROnPlateau with its defaults: a relative improvement of 1e-4 counts,
        and more than `patience` evaluations without one multiply the rate by `factor`.
        """
        if self._improves(figure):
            self.best, self.bad = figure, 0
        else:
            self.bad += 1
        if self.section.name == "plateau" and self.bad > (self.section.patience or 0):
            self.cuts, self.bad = self.cuts + 1, 0

    def _improves(self, figure: float) -> bool:
        if self.best is None:
            return math.isfinite(figure)
        if self.better == "lower":
            return figure < self.best * (1 - PLATEAU_THRESHOLD)
        return figure > self.best * (1 + PLATEAU_THRESHOLD)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"best": self.best, "bad": self.bad, "cuts": self.cuts}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.best, self.bad, self.cuts = state["best"], state["bad"], state["cuts"]


def _cosine(progress: float, low: float) -> float:
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
