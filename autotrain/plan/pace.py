"""Settings over time: learning rate, schedule, epochs, patience, and how often to save."""

from __future__ import annotations

from typing import Any

from autotrain.plan import cadence, learning
from autotrain.plan.ledger import IN_EPOCHS, Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import OptimizerName
from autotrain.units import bytes_text, seconds_text

MOST_SECONDS_AT_STAKE = 15 * 60.0
_FALLS_TO_A_HUNDREDTH = ("cosine", "cosine_restarts", "plateau")


def decide(ledger: Ledger, sizing: Sizing) -> None:
    """Everything here, in order."""
    _rate(ledger, sizing)
    epochs = _epochs(ledger, sizing)
    _schedule(ledger, epochs, sizing.steps_per_epoch())
    _patience(ledger, epochs)
    _cadence(ledger, epochs, sizing)


def _rate(ledger: Ledger, sizing: Sizing) -> None:
    name: OptimizerName = ledger.value("optimizer.name")
    total: int = ledger.value("batch.global_batch")
    adam = learning.ADAM_LIKE
    recipe = ledger.rate
    theirs = recipe is not None and recipe.optimizer
    kin = not theirs or theirs == name or {theirs, name} <= adam
    if recipe is not None and kin:
        rate, source, reference = recipe.value, recipe.source, recipe.global_batch or total
    else:
        rate = learning.default_rate(name, sizing.model.parameters)
        reference = learning.SGD_REFERENCE_BATCH if name == "sgd" else total
        source = learning.RATE_SOURCES.get(name, "torch.optim's default")
    scaled = learning.scaled_rate(rate, name, reference, total)
    formula = f"{rate:.4g} at a global batch of {reference}"
    if reference != total:
        formula = f"{rate:.4g} (found at a global batch of {reference})"
        law = "linear" if name == "sgd" else "square root"
        shape = f"{total} / {reference}" if name == "sgd" else f"sqrt({total} / {reference})"
        formula += f" x {shape} = {scaled:.4g} at {total} ({law} scaling)"
        if learning.SCALING_SOURCES[law] not in source:
            source += f"; {learning.SCALING_SOURCES[law]}"
    elif recipe is not None:
        formula += ", as in this plan"
    if recipe is not None and not kin:
        formula += f"; the recipe's {recipe.value:.4g} is for {theirs}"
    ledger.drop("optimizer.lr")
    ledger.settle(
        "optimizer.lr",
        scaled,
        formula=formula,
        source=source,
        kind="fixed" if recipe is not None and kin and reference == total else "rule",
        limited_by="batch.global_batch" if reference != total else "",
    )


def _epochs(ledger: Ledger, sizing: Sizing) -> int:
    steps = sizing.steps_per_epoch()
    epochs: int = ledger.settle(
        "train.epochs",
        learning.default_epochs(steps),
        formula=f"3000 steps / {steps} steps an epoch, rounded up, from 10 to 100",
        source="autotrain's rule; early stopping ends it sooner",
    )
    return epochs


def _schedule(ledger: Ledger, epochs: int, steps_per_epoch: int) -> None:
    name = ledger.settle(
        "schedule.name",
        "cosine",
        formula="warm up, then fall along a cosine to a hundredth",
        source="Loshchilov and Hutter 2017, arXiv:1608.03983",
    )
    total = epochs * steps_per_epoch
    for steps_key in IN_EPOCHS:
        _in_epochs(ledger, steps_key, steps_per_epoch)
    ledger.settle(
        "schedule.warmup_steps",
        learning.warmup_steps(total),
        formula=f"a twentieth of {total} steps, at most 2000",
        source="autotrain's rule, after Goyal 2017, arXiv:1706.02677 (5 of 90 epochs)",
    )
    low = 0.01 * ledger.value("optimizer.lr") if name in _FALLS_TO_A_HUNDREDTH else None
    quarter = max(total // 4, 1)
    rules: dict[str, tuple[Any, str]] = {
        "min_lr": (low, "a hundredth of optimizer.lr"),
        "factor": (0.5, "halved"),
        "patience": (3, "evaluations without progress before optimizer.lr falls"),
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


def _in_epochs(ledger: Ledger, steps_key: str, steps_per_epoch: int) -> None:
    """What was given in epochs, in steps."""
    given = ledger.given.pop(IN_EPOCHS[steps_key], None)
    if given is not None and given.value is not None:
        steps = round(given.value * steps_per_epoch)
        said = f"{given.value:g} epochs x {steps_per_epoch} steps = {steps}"
        steps = max(steps, 1) if steps_key == "schedule.period_steps" else steps
        ledger.given[steps_key] = given._replace(value=steps, said=said)


def _patience(ledger: Ledger, epochs: int) -> None:
    ledger.settle(
        "early_stop.patience",
        learning.default_patience(epochs),
        formula=f"a fifth of {epochs} epochs, at least 5 evaluations without progress",
        source="Prechelt 1998, Early Stopping - But When?",
        would_change="--set early_stop.patience=off",
    )
    ledger.settle(
        "early_stop.min_delta",
        0.0,
        formula="any improvement counts",
        source="autotrain's rule",
    )


def _cadence(ledger: Ledger, epochs: int, sizing: Sizing) -> None:
    by_steps = ledger.fixed("evaluate.every_steps") is not None
    ledger.settle(
        "evaluate.every_epochs",
        None if by_steps else 1,
        formula="it goes by steps instead" if by_steps else "after every epoch",
        source="autotrain's rule",
    )
    ledger.settle(
        "evaluate.every_steps",
        None,
        formula="it goes by epochs",
        source="autotrain's rule",
        would_change="--set evaluate.every_steps=500",
    )
    _checkpoints(ledger, epochs, sizing)
    size, free = sizing.checkpoint_bytes().expected, sizing.hardware.disk.free_bytes
    kept = cadence.keep(size, free)
    ledger.settle(
        "checkpoint.keep",
        kept,
        formula=f"{bytes_text(size)} each, {bytes_text(free)} free: 3, or what leaves room for "
        "the best, one being written, and 1 GiB",
        source="autotrain's rule",
        limited_by="the disk" if kept < cadence.KEEP else "",
    )
    step = sizing.step_seconds().expected
    ledger.settle(
        "run.log_every_steps",
        cadence.log_every(step, sizing.total_steps()),
        formula=f"{seconds_text(step)} a step: about one line a second, at least 50 in a run, "
        "at most 100 steps apart",
        source="autotrain's rule",
    )


def _checkpoints(ledger: Ledger, epochs: int, sizing: Sizing) -> None:
    step = sizing.step_seconds().expected
    by_steps = ledger.fixed("checkpoint.every_steps") is not None
    every = ledger.settle(
        "checkpoint.every_epochs",
        None if by_steps else cadence.epochs_fifth_rule(epochs),
        formula="it goes by steps instead" if by_steps else f"{epochs} epochs / 5, rounded down",
        source="the speech autoencoder that autotrain grew out of",
    )
    at_stake = min(every or epochs, epochs) * sizing.steps_per_epoch() * step
    long = at_stake > MOST_SECONDS_AT_STAKE
    ledger.settle(
        "checkpoint.every_steps",
        cadence.checkpoint_steps(step, MOST_SECONDS_AT_STAKE) if long else None,
        formula=f"{seconds_text(at_stake)} of work between saves by epochs; at most "
        f"{seconds_text(MOST_SECONDS_AT_STAKE)} may be at stake",
        source="autotrain's rule",
    )
