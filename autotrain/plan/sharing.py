"""A limit of time or money over all stages of a plan: what each of them may take of it.

Every stage gets in proportion to what it would take without a limit, and never less than one epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from autotrain.errors import DoesNotFitError
from autotrain.plan.inversion import paid_seconds, spelled
from autotrain.schema import Goal
from autotrain.units import seconds_text

WITHIN, SPEND = LIMITS = ("train.within_seconds", "train.spend_dollars")


class Part(NamedTuple):
    """A stage, in seconds: with one epoch (with all that a person has set), and without a limit."""

    name: str
    least: float
    usual: float


class Whole(NamedTuple):
    """What all stages together may take: seconds, and the limits as they were said."""

    seconds: float
    said: dict[str, float]

    def of(self, seconds: float) -> dict[str, float]:
        """The limits of a stage that may take so many of the seconds."""
        return {key: value * seconds / self.seconds for key, value in self.said.items()}

    def flags(self, seconds: float) -> str:
        """What to say for so many seconds instead, rounded up, of what is too little."""
        within, found = self.said.get(WITHIN, math.inf), []
        if within < seconds:
            found.append(f"--within {spelled(seconds)}")
        if SPEND in self.said and within > self.seconds:
            found.append(f"--for {math.ceil(100 * self.of(seconds)[SPEND]) / 100:g}usd")
        return " ".join(found)


def limits(settings: Mapping[str, Any]) -> dict[str, float]:
    """Those that a person has set."""
    return {key: settings[key] for key in LIMITS if settings.get(key) is not None}


def whole(said: dict[str, float], price: float | None, machine: str) -> Whole | None:
    """The tightest of them; None where what costs nothing may take as long as it likes.

    Raises UsageError where nobody knows what an hour of the machine costs.
    """
    seconds = said.get(WITHIN, float("inf"))
    if SPEND in said:
        seconds = min(seconds, paid_seconds(said[SPEND], price, machine))
    return Whole(seconds, said) if seconds < float("inf") else None


def shares(parts: Sequence[Part], limit: Whole) -> list[float]:
    """Seconds of the whole that each may take.

    Raises DoesNotFitError where one epoch of each is too much.
    """
    seconds = limit.seconds
    if sum(part.least for part in parts) > seconds:
        raise _too_long(parts, limit)
    short: set[int] = set()
    while True:
        rest = seconds - sum(parts[n].least for n in short)
        others = [n for n in range(len(parts)) if n not in short]
        usual = sum(parts[n].usual for n in others)
        each = {n: rest * parts[n].usual / usual for n in others}
        less = {n for n in others if each[n] < parts[n].least}
        if not less:
            return [each.get(n, part.least) for n, part in enumerate(parts)]
        short |= less


def with_limits(goal: Goal, own: dict[str, float]) -> Goal:
    """The goal of a stage with its part of them."""
    return goal.model_copy(update={"user": {**goal.user, **own}})


def _too_long(parts: Sequence[Part], limit: Whole) -> DoesNotFitError:
    least = sum(part.least for part in parts)
    told = ", ".join(f"{part.name} {seconds_text(part.least)}" for part in parts)
    return DoesNotFitError(
        f"all stages are expected to take {seconds_text(least)} at least ({told}), with one epoch "
        f"of each or as many as you set; {seconds_text(limit.seconds)} are allowed",
        f"what would make it fit: {limit.flags(least)}, or fewer stages, a smaller model or "
        "input, or less data",
    )
