"""Settings over time: learning rate, schedule, epochs, patience, and how often to save."""

from __future__ import annotations

from typing import Any, NamedTuple

from autotrain.plan import learning, optimizing, range_test, saving
from autotrain.plan import patience as waiting
from autotrain.plan.ledger import IN_EPOCHS, Ledger
from autotrain.plan.sizing import Sizing

_FALLS_TO_A_HUNDREDTH = ("cosine", "cosine_restarts", "plateau")


def decide(ledger: Ledger, sizing: Sizing) -> None:
    """Everything here, in order."""
    times = optimizing.scale(
        ledger, sizing.model.parameters, sizing.train_count, sparse=sizing.model.sparse
    )
    range_test.settle(ledger, sizing.model.range_test)
    epochs = _epochs(ledger, sizing)
    saving.decide(ledger, sizing, epochs)
    evaluations = Evaluations.of(sizing)
    _schedule(ledger, sizing, times, evaluations)
    _patience(ledger, evaluations)


class Evaluations(NamedTuple):
    """How many a run has, how many steps lie between them, and of how many samples they are."""

    number: int
    steps_between: float
    samples: int

    @classmethod
    def of(cls, sizing: Sizing) -> Evaluations:
        """Those of the plan."""
        count = sizing.time.occasions("evaluate")
        return cls(count, sizing.total_steps() / count, sizing.valid_count)


def _epochs(ledger: Ledger, sizing: Sizing) -> int:
    steps = sizing.steps_per_epoch()
    epochs: int = ledger.settle(
        "train.epochs",
        learning.default_epochs(steps),
        formula=f"3000 steps / {steps} steps an epoch, rounded up, from 10 to 100",
        source="autotrain's rule; early stopping ends it sooner",
    )
    return epochs


def _schedule(ledger: Ledger, sizing: Sizing, times: float, evaluations: Evaluations) -> None:
    name = ledger.settle(
        "schedule.name",
        "cosine",
        formula="warm up, then fall along a cosine to a hundredth",
        source="Loshchilov and Hutter 2017, arXiv:1608.03983",
    )
    for steps_key in IN_EPOCHS:
        _in_epochs(ledger, steps_key, sizing.steps_per_epoch())
    _warmup(ledger, sizing, times)
    low = 0.01 * ledger.value("optimizer.lr") if name in _FALLS_TO_A_HUNDREDTH else None
    total = sizing.total_steps()
    quarter = max(total // 4, 1)
    wait = waiting.plateau_patience(waiting.patience(*_noise(evaluations)))
    rules: dict[str, tuple[Any, str]] = {
        "min_lr": (low, "a hundredth of optimizer.lr"),
        "factor": (0.5, "halved"),
        "patience": (
            wait,
            "evaluations without progress before optimizer.lr falls: a third of those that would "
            f"end the run, from {waiting.LEAST_PLATEAU} to {waiting.MOST_PLATEAU}",
        ),
        "period_steps": (quarter, f"a quarter of the run's {total} steps"),
    }
    for key, (value, why) in rules.items():
        used = name in learning.SCHEDULE_USERS[key]
        if not used:
            ledger.drop(f"schedule.{key}")
        ledger.settle(
            f"schedule.{key}",
            value if used else None,
            formula=why if used and value is not None else f"{name} does without",
            source="autotrain's rule" if used else "torch.optim.lr_scheduler",
            would_change="" if used else "another schedule.name",
        )


def _warmup(ledger: Ledger, sizing: Sizing, times: float) -> None:
    betas = ledger.value("optimizer.betas")
    made = learning.warmup(
        sizing.total_steps(),
        ledger.value("optimizer.name"),
        sizing.steps_per_epoch(),
        betas[1] if betas else None,
        times,
    )
    ledger.settle("schedule.warmup_steps", made.steps, formula=made.formula, source=made.source)


def _in_epochs(ledger: Ledger, steps_key: str, steps_per_epoch: int) -> None:
    """What was given in epochs, in steps."""
    given = ledger.given.pop(IN_EPOCHS[steps_key], None)
    if given is not None and given.value is not None:
        steps = round(given.value * steps_per_epoch)
        said = f"{given.value:g} epochs x {steps_per_epoch} steps = {steps}"
        steps = max(steps, 1) if steps_key == "schedule.period_steps" else steps
        ledger.given[steps_key] = given._replace(value=steps, said=said)


def _patience(ledger: Ledger, evaluations: Evaluations) -> None:
    wait, why = waiting.patience(*_noise(evaluations)), _waiting_said(evaluations)
    floor, reason = _schedules_need(ledger, evaluations)
    if floor > wait:
        wait, why = floor, f"{reason}; else {wait}: {why}"
    if wait > evaluations.number:
        wait, why = evaluations.number, f"{why}; the run has {evaluations.number}, so all of them"
    ledger.settle(
        "early_stop.patience",
        wait,
        formula=why,
        source="autotrain's rule (docs/formulas.md); Prechelt 1998, Early Stopping - But When?",
        limited_by="how many validation samples there are",
        would_change="more validation samples, or --set early_stop.patience=off",
    )
    ledger.settle(
        "early_stop.min_delta",
        0.0,
        formula="any improvement counts",
        source="autotrain's rule",
    )


def _noise(evaluations: Evaluations) -> tuple[int, int, float]:
    """What patience follows from: samples of each, their number, steps between them."""
    return evaluations.samples, evaluations.number, evaluations.steps_between


def _waiting_said(evaluations: Evaluations) -> str:
    samples, count, between = evaluations.samples, evaluations.number, evaluations.steps_between
    blur, part = 100 * waiting.uncertainty(samples), 100 * waiting.share(samples)
    shown, least = waiting.by_noise(samples, count), waiting.least(count, between)
    wait = f"{shown} of the run's {count} evaluations"
    why = (
        f"a figure from {samples} validation samples is off by about {blur:.2g} % by chance "
        f"(1 / sqrt({samples})). Real progress may stay hidden behind that for {part:.2g} % of the "
        f"run (a tenth and twice the {blur:.2g} %, at most half), which is {wait}"
    )
    if least > shown:
        return f"{least} evaluations, as one comes every {between:.4g} steps; else {wait}: {why}"
    return why


def _schedules_need(ledger: Ledger, evaluations: Evaluations) -> tuple[int, str]:
    """The least that lets the schedule do what it is for, and why."""
    name, between = ledger.value("schedule.name"), evaluations.steps_between
    if name == "plateau":
        falls = ledger.value("schedule.patience")
        return waiting.after_falls(falls), (
            f"the rate falls after {falls + 1} evaluations without progress: twice, before the "
            "run may end"
        )
    if name == "cosine_restarts":
        period = ledger.value("schedule.period_steps")
        return waiting.after_restart(period, between), (
            f"figures get worse at each restart: a whole period of {period} steps"
        )
    return 0, ""
