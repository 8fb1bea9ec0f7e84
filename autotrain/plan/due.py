"""How often a run evaluates and saves, with so many epochs: the rules beside what is given."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotrain.plan import cadence, learning
from autotrain.plan.cadence import Pace
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import HardwareProfile, Prediction

AT_STAKE_MINUTES = 15.0


class Times(NamedTuple):
    """Seconds of a step, an evaluation, a save and the start; steps of an epoch.

    None of them changes with the number of epochs. `mean`: of all steps of an epoch, whose last
    may be smaller.
    """

    step: Prediction
    mean: Prediction
    evaluation: Prediction
    save: float
    start: Prediction
    per_epoch: int
    hardware: HardwareProfile

    @classmethod
    def of(cls, sizing: Sizing) -> Times:
        """Those of the settings in force."""
        return cls(
            sizing.time.step_seconds(),
            sizing.time.mean_step_seconds(),
            sizing.time.evaluation_seconds(),
            sizing.time.save_seconds(),
            sizing.time.start_seconds(),
            sizing.steps_per_epoch(),
            sizing.hardware,
        )

    def each(self, epochs: int, evaluates: Pace) -> Prediction:
        """Seconds of a step with its share of the evaluations."""
        made = cadence.occasions(epochs, self.per_epoch, *evaluates)
        part, step, evaluation = made / (epochs * self.per_epoch), self.step, self.evaluation
        return Prediction(
            low=step.low + part * evaluation.low,
            expected=step.expected + part * evaluation.expected,
            high=step.high + part * evaluation.high,
        )


class Interval(NamedTuple):
    """Most seconds and steps between saves, how long each step is taken to be and at most may be,
    and which setting says so.
    """

    seconds: float
    steps: int
    each: float
    longest: float
    limited_by: str


def in_force(ledger: Ledger, section: str, rule: Pace) -> Pace:
    """What the user or a recipe gives, else the rule."""
    keys = (f"{section}.every_epochs", f"{section}.every_steps")
    given = (ledger.given.get(key) for key in keys)
    return Pace(*(r if g is None else g.value for g, r in zip(given, rule, strict=True)))


def evaluating(ledger: Ledger, times: Times, epochs: int) -> Pace:
    """The rule for evaluations beside what is given."""
    # Every second evaluation is taken to be the best so far, and saved.
    cost = times.evaluation.expected + times.save / 2
    rule = cadence.evaluation_pace(epochs, times.per_epoch, times.step.expected, cost)
    if ledger.fixed("evaluate.every_steps") is not None:
        return Pace(None, rule.every_steps)
    by_epochs = in_force(ledger, "evaluate", rule).every_epochs is not None
    settled = by_epochs or ledger.by_user("evaluate.every_epochs")
    return Pace(rule.every_epochs, None if settled else rule.every_steps)


def interval(ledger: Ledger, times: Times, epochs: int, evaluates: Pace) -> Interval:
    """Between saves: the best by Young and Daly, or what may be at stake if that is less.

    The one is a mean, of steps as they are expected. The other is to hold for steps that take as
    long as they may.
    """
    apart, minutes = hours(ledger, times.hardware), _minutes(ledger)
    each = times.each(epochs, evaluates)
    limits = [(math.inf, each.expected, "")]
    if apart is not None:
        best = cadence.best_interval(times.save, 3600 * apart)
        limits.append((best, each.expected, "checkpoint.interruption_hours"))
    if minutes is not None:
        limits.append((60 * minutes, each.high, "checkpoint.at_stake_minutes"))
    found = [
        Interval(seconds, cadence.steps_within(seconds, step), step, each.high, limited_by)
        for seconds, step, limited_by in limits
    ]
    return min(found, key=lambda limit: (limit.steps, limit.seconds))


def saving(ledger: Ledger, most: Interval, per_epoch: int, epochs: int) -> Pace:
    """The rule for saves beside what is given."""
    rule = cadence.save_pace(most.steps, per_epoch, cadence.epochs_fifth_rule(epochs))
    if ledger.fixed("checkpoint.every_steps") is not None:
        rule = Pace(None, rule.every_steps)
    elif ledger.by_user("checkpoint.every_steps"):
        rule = Pace(rule.every_epochs or 1, None)
    elif ledger.by_user("checkpoint.every_epochs") and rule.every_epochs:
        rule = Pace(None, rule.every_epochs * per_epoch)
    every = in_force(ledger, "checkpoint", rule).every_epochs
    steps = _steps_too(ledger, most, per_epoch, epochs, every) if every else rule.every_steps
    return Pace(rule.every_epochs, steps if (steps or 0) < epochs * per_epoch else None)


def run_seconds(ledger: Ledger, times: Times, epochs: int) -> Prediction:
    """The whole run of so many epochs, in seconds. `ledger` holds what is given."""
    evaluates = in_force(ledger, "evaluate", evaluating(ledger, times, epochs))
    most = interval(ledger, times, epochs, evaluates)
    saves = in_force(ledger, "checkpoint", saving(ledger, most, times.per_epoch, epochs))
    return cadence.run_seconds(
        times.start,
        epochs * times.per_epoch,
        times.mean,
        cadence.occasions(epochs, times.per_epoch, *evaluates),
        times.evaluation,
        cadence.occasions(epochs, times.per_epoch, *saves),
        times.save,
    )


def expected_seconds(ledger: Ledger, sizing: Sizing) -> float:
    """Of the whole run, as it is decided so far, with the epochs that are given or usual."""
    epochs = ledger.fixed("train.epochs") or learning.default_epochs(sizing.steps_per_epoch())
    return run_seconds(ledger, Times.of(sizing), epochs).expected


def _steps_too(
    ledger: Ledger, most: Interval, per_epoch: int, epochs: int, every: int
) -> int | None:
    """Steps between saves beside `every` epochs, where those leave too much at stake."""
    minutes, theirs = _minutes(ledger), ledger.by_user("checkpoint.every_epochs")
    if minutes is None or (theirs and not ledger.by_user("checkpoint.at_stake_minutes")):
        return None
    if min(every, epochs) * per_epoch * most.longest <= 60 * minutes:
        return None
    pace = cadence.save_pace(most.steps, per_epoch, most.steps)
    return pace.every_steps or (pace.every_epochs or 1) * per_epoch


def other_goes(ledger: Ledger) -> None:
    """Who says steps does not mean a recipe's epochs too, nor the other way round."""
    for section in ("evaluate", "checkpoint"):
        epochs, steps = f"{section}.every_epochs", f"{section}.every_steps"
        for said, other in ((epochs, steps), (steps, epochs)):
            if ledger.by_user(said) and ledger.fixed(said) is not None:
                ledger.drop(other)


def hours(ledger: Ledger, hardware: HardwareProfile) -> float | None:
    """Mean hours between interruptions; None where none is expected."""
    given = ledger.given.get("checkpoint.interruption_hours")
    return cadence.interruption_hours(hardware) if given is None else given.value


def _minutes(ledger: Ledger) -> float | None:
    given = ledger.given.get("checkpoint.at_stake_minutes")
    return AT_STAKE_MINUTES if given is None else given.value
