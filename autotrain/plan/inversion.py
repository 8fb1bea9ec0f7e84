"""Which length of run fits a given time, or a given sum of money: the plan's limits, inverted.

Epochs are what a template or a recipe leaves open; the batch, the precision and the loader are
chosen for speed anyway. So a limit picks `train.epochs`, and all that follows from it follows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.plan import due, pace, remedies
from autotrain.plan.due import Times
from autotrain.plan.ledger import Given, Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import AUTO, Goal, HardwareProfile, ModelProfile, Prediction, Reason
from autotrain.units import seconds_text

_LIMITS = ("train.within_seconds", "train.spend_dollars", "train.price_per_hour")
# What a recipe counts in epochs, or in steps of its own number of epochs.
_IN_PROPORTION = (
    "schedule.warmup_epochs",
    "schedule.warmup_steps",
    "schedule.period_epochs",
    "schedule.period_steps",
    "checkpoint.every_epochs",
)
# Candidates looked at one by one; beyond, by halving.
_ONE_BY_ONE = 100

Within = Callable[[Goal], bool]


class Limit(NamedTuple):
    """Seconds that a run may take, the key that says so, and how a person said it."""

    seconds: float
    key: str
    said: str


class Choice(NamedTuple):
    """Epochs for a limit, and why. `usual`: what they would be without one."""

    epochs: int
    usual: int
    formula: str


def priced(hardware: HardwareProfile, price_per_hour: float | None) -> HardwareProfile:
    """The machine at this price, in dollars an hour; at its own where none is given."""
    if price_per_hour is None:
        return hardware
    return hardware.model_copy(update={"price_per_hour": price_per_hour})


def limit(ledger: Ledger, sizing: Sizing) -> Limit | None:
    """What the run may take, if the user or a recipe says so. Raises UsageError."""
    seconds, dollars, price = (_settled(ledger, key, sizing) for key in _LIMITS)
    found = []
    if seconds is not None:
        found.append(Limit(seconds, "train.within_seconds", seconds_text(seconds)))
    if dollars is not None:
        paid = paid_seconds(dollars, price, sizing.hardware.name)
        said = f"{seconds_text(paid)} ({dollars:g} dollars at {price:g} an hour)"
        found.append(Limit(paid, "train.spend_dollars", said))
    # What costs nothing may take as long as it likes.
    return min((each for each in found if each.seconds < math.inf), default=None)


def paid_seconds(dollars: float, price: float | None, machine: str) -> float:
    """For how long they pay. Raises UsageError where nobody knows what an hour costs."""
    if price is None:
        raise UsageError(
            f"--for {dollars:g} dollars: the price of an hour of {machine} is not known",
            hint="--price 0.35, in dollars an hour; or price_per_hour in the machine's profile",
        )
    return 3600 * dollars / price if price else math.inf


def shortest(sizing: Sizing) -> float:
    """Expected seconds of a run of one epoch; of all where they are the user's."""
    ledger = _copied(sizing.ledger)
    pace.decide(ledger, replace(sizing, ledger=ledger))
    usual: int = ledger.value("train.epochs")
    epochs = usual if sizing.ledger.by_user("train.epochs") else 1
    return _run(sizing.ledger, Times.of(sizing), epochs, usual).expected


def _settled(ledger: Ledger, key: str, sizing: Sizing) -> float | None:
    given = ledger.given.get(key)
    if given is not None and key == "train.within_seconds" and given.value is not None:
        ledger.given[key] = given._replace(said=seconds_text(given.value))
    set_here = given is not None and given.value is not None
    texts = {
        "train.within_seconds": ("the run is to end within it", "no limit was set"),
        "train.spend_dollars": ("the run is to cost no more", "no limit was set"),
        "train.price_per_hour": ("dollars an hour", f"as in the profile of {sizing.hardware.name}"),
    }
    flags = {"train.within_seconds": "--within 6h", "train.spend_dollars": "--for 5usd"}
    price = sizing.hardware.price_per_hour if key == "train.price_per_hour" else None
    unknown = key == "train.price_per_hour" and price is None
    formula = texts[key][0] if set_here else "no price is known" if unknown else texts[key][1]
    value: float | None = ledger.settle(
        key,
        price,
        formula=formula,
        source="the machine's profile" if price is not None else "autotrain's default: none",
        kind="fixed",
        would_change=flags.get(key, "--price 0.35"),
    )
    return value


def choose(limit: Limit, sizing: Sizing) -> Choice:
    """The most epochs whose expected run is within the limit, never more than without one.

    Raises DoesNotFitError where one epoch is too many, UsageError where the user's own are.
    """
    ledger = _copied(sizing.ledger)
    pace.decide(ledger, replace(sizing, ledger=ledger))
    usual: int = ledger.value("train.epochs")
    times = Times.of(sizing)

    def run(epochs: int) -> Prediction:
        return _run(sizing.ledger, times, epochs, usual)

    if run(usual).expected <= limit.seconds:
        return Choice(usual, usual, _left(limit, usual, run(usual)))
    fit = _most(usual - 1, limit.seconds, times, lambda n: run(n).expected)
    if sizing.ledger.by_user("train.epochs"):
        raise _contradiction(limit, usual, run(usual), fit)
    if not fit:
        raise _too_long(limit, ledger, times, run(1))
    sure = _most(fit, limit.seconds, times, lambda n: run(n).high)
    return Choice(fit, usual, _formula(limit, fit, usual, run, sure))


def _left(limit: Limit, usual: int, run: Prediction) -> str:
    return (
        f"all {usual} epochs are expected to take {seconds_text(run.expected)} of the "
        f"{limit.said} allowed: {seconds_text(limit.seconds - run.expected)} are left over"
    )


def _formula(
    limit: Limit, fit: int, usual: int, run: Callable[[int], Prediction], sure: int
) -> str:
    here, more = run(fit), run(fit + 1)
    said = (
        f"{fit} of {usual} epochs are expected to take {seconds_text(here.expected)} of the "
        f"{limit.said} allowed; {fit + 1} would take {seconds_text(more.expected)}. They may take "
        f"up to {seconds_text(here.high)}"
    )
    if sure == fit:
        return f"{said}, which fits too"
    safe = f"train.epochs={sure} would fit even so" if sure else "nor is a single one sure to fit"
    return f"{said}; {safe}"


def _most(most: int, seconds: float, times: Times, run: Callable[[int], float]) -> int:
    """The most epochs, up to `most`, whose `run` is within so many seconds, or 0.

    A run of more epochs may evaluate less often and take less time, so the candidates are tried
    downwards from what the steps alone allow.
    """
    steps = max(seconds - times.start.low, 0) / (times.per_epoch * times.step.expected)
    high = min(most, int(min(steps, 1e9)))
    low = max(high - _ONE_BY_ONE, 0)
    for epochs in range(high, low, -1):
        if run(epochs) <= seconds:
            return epochs
    fits = 0
    while fits < low:
        middle = (fits + low + 1) // 2
        fits, low = (middle, low) if run(middle) <= seconds else (fits, middle - 1)
    return fits


def _copied(ledger: Ledger) -> Ledger:
    """One to try things with."""
    other = copy.copy(ledger)
    other.given = dict(ledger.given)
    other.values = {section: dict(held) for section, held in ledger.values.items()}
    other.because = {section: dict(held) for section, held in ledger.because.items()}
    return other


def _run(ledger: Ledger, times: Times, epochs: int, usual: int) -> Prediction:
    """The run with so many epochs, in seconds."""
    other = copy.copy(ledger)
    other.given = dict(ledger.given)
    shorten(other, epochs, usual)
    due.other_goes(other)
    return due.run_seconds(other, times, epochs)


def shorten(ledger: Ledger, epochs: int, usual: int) -> None:
    """So many epochs, and what a recipe found for its `usual` ones in proportion."""
    ledger.given["train.epochs"] = Given(epochs, "rule", "the limit")
    for key in _IN_PROPORTION:
        given = ledger.given.get(key)
        if given is None or given.value is None or given.kind == "user" or epochs >= usual:
            continue
        scaled = given.value * epochs / usual
        if not key.endswith("warmup_epochs") and not key.endswith("period_epochs"):
            scaled = max(int(scaled), 0 if key.endswith("warmup_steps") else 1)
        said = f"{given.value:g} x {epochs} / {usual} epochs = {scaled:.3g}"
        ledger.given[key] = given._replace(value=scaled, said=said)


def record(ledger: Ledger, limit: Limit, choice: Choice) -> None:
    """Write down what the limit led to, and why `train.epochs` is what it is."""
    section, name = limit.key.split(".")
    own = ledger.because[section][name]
    because = own.model_copy(update={"formula": choice.formula})
    ledger.record(limit.key, ledger.value(limit.key), because)
    if choice.epochs == choice.usual:
        return
    flag = {"train.within_seconds": "--within", "train.spend_dollars": "--for"}[limit.key]
    reason = Reason(
        value=choice.epochs,
        kind="rule",
        formula=choice.formula,
        source=f"{flag}, which you set; the expected time is to fit, not the longest",
        limited_by=limit.key,
        would_change=f"another {flag}; a trial narrows what a step is expected to take",
    )
    ledger.record("train.epochs", choice.epochs, reason)


# --- what cannot be met --------------------------------------------------------------------


def _contradiction(limit: Limit, epochs: int, run: Prediction, fit: int) -> UsageError:
    more = f"--within {spelled(run.expected)}"
    fewer = f"--set train.epochs=auto: {fit} fit; or " if fit else ""
    return UsageError(
        f"train.epochs: the {epochs} epochs that you set are expected to take "
        f"{seconds_text(run.expected)}; {limit.said} are allowed",
        hint=f"{fewer}{more}",
    )


def _too_long(limit: Limit, ledger: Ledger, times: Times, run: Prediction) -> DoesNotFitError:
    flag = f"--within {spelled(run.expected)}"
    if limit.key == "train.spend_dollars":
        price = float(ledger.value("train.price_per_hour"))
        flag = f"--for {math.ceil(100 * run.expected / 3600 * price) / 100:g}usd"
    return DoesNotFitError(
        f"a run of one epoch is expected to take {seconds_text(run.expected)} "
        f"({seconds_text(run.low)} to {seconds_text(run.high)}): {times.per_epoch} steps of "
        f"{seconds_text(times.step.expected)}, starting, evaluating and saving; {limit.said} are "
        "allowed",
        flag,
    )


def spelled(seconds: float) -> str:
    """As `--within` takes it, rounded up."""
    return f"{math.ceil(seconds / 60)}min" if seconds > 600 else f"{math.ceil(seconds)}s"


def hint(first: str, goal: Goal, model: ModelProfile, within: Within) -> str:
    """What would make one epoch fit: `first`, and other remedies that `within` confirms."""
    own: list[remedies.Change] = [{key: AUTO} for key in goal.user if key not in _LIMITS]
    halves: list[remedies.Change] = [{"precision.dtype": dtype} for dtype in remedies.halves(model)]
    found = [change for change in (*own, *halves) if within(remedies.changed(goal, change))]
    said = [first, *map(remedies.spelled, found), "a smaller model or input, or less data"]
    return f"what would make it fit: {', or '.join(said)}"
