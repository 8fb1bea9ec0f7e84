"""Settings over time: learning rate, schedule, epochs, patience, and how often to save."""

from __future__ import annotations

from typing import Any

from autotrain.plan import cadence, learning
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.units import bytes_text, seconds_text

MOST_SECONDS_AT_STAKE = 15 * 60.0


def decide(ledger: Ledger, sizing: Sizing) -> None:
    """Everything here, in order."""
    _rate(ledger, sizing)
    epochs = _epochs(ledger, sizing)
    _schedule(ledger, epochs, sizing.steps_per_epoch())
    _patience(ledger, epochs)
    _cadence(ledger, epochs, sizing)


def _rate(ledger: Ledger, sizing: Sizing) -> None:
    name = ledger.values["optimizer"]["name"]
    total = ledger.values["batch"]["global_batch"]
    recipe, batch = ledger.recipe("optimizer.lr"), ledger.recipe("batch.global_batch")
    if recipe is not None:
        rate, source = recipe.value, recipe.source
        reference = total if batch is None else batch.value
    else:
        rate = learning.default_rate(name, sizing.model.parameters)
        reference = learning.SGD_REFERENCE_BATCH if name == "sgd" else total
        source = "Goyal 2017 (SGD), Kingma and Ba 2015, Brown 2020 (Adam-like)"
    scaled = learning.scaled_rate(rate, name, reference, total)
    law = "linear" if name == "sgd" else "square root"
    if reference == total:
        formula = f"{rate:g} at a global batch of {total}: nothing to scale"
    else:
        formula = f"{rate:g} x {law} of {total} / {reference} = {scaled:.3g}"
        source += "; Goyal 2017 (linear), Malladi 2022 (square root)"
    ledger.drop("optimizer.lr")
    ledger.settle(
        "optimizer.lr",
        scaled,
        formula=formula,
        source=source,
        limited_by="batch.global_batch" if reference != total else "",
    )


def _epochs(ledger: Ledger, sizing: Sizing) -> int:
    steps = sizing.steps_per_epoch()
    epochs: int = ledger.settle(
        "train.epochs",
        learning.default_epochs(steps),
        formula=f"3000 steps / {steps} steps an epoch, from 10 to 100",
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
    _in_epochs(ledger, "schedule.warmup_epochs", "schedule.warmup_steps", steps_per_epoch)
    _in_epochs(ledger, "schedule.period_epochs", "schedule.period_steps", steps_per_epoch)
    ledger.settle(
        "schedule.warmup_steps",
        learning.warmup_steps(total),
        formula=f"a twentieth of {total} steps, at most 2000",
        source="Goyal 2017, arXiv:1706.02677",
    )
    rate = ledger.values["optimizer"]["lr"]
    rules: dict[str, tuple[tuple[str, ...], Any, str]] = {
        "min_lr": (("cosine", "cosine_restarts", "plateau"), 0.01 * rate, "a hundredth of lr"),
        "factor": (("plateau", "exponential"), 0.5, "halved"),
        "patience": (("plateau",), 3, "evaluations without progress before lr falls"),
        "period_steps": (
            ("cosine_restarts", "exponential"), max(total // 4, 1), "a quarter of the run",
        ),
    }  # fmt: skip
    for key, (users, value, why) in rules.items():
        used = name in users
        if not used:
            ledger.drop(f"schedule.{key}")
        ledger.settle(
            f"schedule.{key}",
            value if used else None,
            formula=why if used else f"not used by {name}",
            source="torch.optim.lr_scheduler's defaults, adjusted",
        )


def _in_epochs(ledger: Ledger, epochs_key: str, steps_key: str, steps_per_epoch: int) -> None:
    """Recipes may count in epochs; plans count in steps."""
    given = ledger.given.pop(epochs_key, None)
    if given is not None and not ledger.by_user(steps_key):
        steps = round(given.value * steps_per_epoch)
        ledger.given[steps_key] = given._replace(value=steps)


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
        "evaluate.every_epochs", None if by_steps else 1,
        formula="after every epoch", source="autotrain's rule",
    )  # fmt: skip
    ledger.settle("evaluate.every_steps", None, formula="by epochs", source="autotrain's rule")
    step, per_epoch = sizing.step_seconds().expected, sizing.steps_per_epoch()
    epoch_rule = cadence.epochs_fifth_rule(epochs)
    every = ledger.settle(
        "checkpoint.every_epochs",
        epoch_rule,
        formula=f"{epochs} epochs / 5",
        source="the speech autoencoder origin's rule",
    )
    at_stake = (every or epochs) * per_epoch * step
    steps = cadence.checkpoint_steps(step, MOST_SECONDS_AT_STAKE)
    long = at_stake > MOST_SECONDS_AT_STAKE
    ledger.settle(
        "checkpoint.every_steps",
        steps if long else None,
        formula=f"{seconds_text(at_stake)} between saves by epochs; at most "
        f"{seconds_text(MOST_SECONDS_AT_STAKE)} of work may be at stake",
        source="autotrain's rule",
    )
    size = sizing.checkpoint_bytes().expected
    free = sizing.hardware.disk.free_bytes
    ledger.settle(
        "checkpoint.keep",
        cadence.keep(size, free),
        formula=f"{bytes_text(size)} each, {bytes_text(free)} free: 3, or what leaves room for "
        "the best, one being written, and 1 GiB",
        source="autotrain's rule",
        limited_by="the disk" if cadence.keep(size, free) < 3 else "",
    )
    ledger.settle(
        "run.log_every_steps",
        cadence.log_every(step, epochs * per_epoch),
        formula="about one line a second, at least 50 in a run",
        source="autotrain's rule",
    )
