"""What to set instead, as keys of the plan: a run's next plan, in one line to type."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from autotrain import starving
from autotrain.events import Healed
from autotrain.report.diagnosis.view import Change
from autotrain.schema import Plan, Reason

# Weight decay that is felt, and what it is raised to at most.
DECAY, MOST_DECAY = 0.05, 0.3
DROPOUT, MOST_DROPOUT = 0.3, 0.5
PATIENCE = 5


class Place(NamedTuple):
    """What a command calls the plan of a run. `output`: where the next one goes, where it may not
    replace that one; `stage`: the run is that stage of it.
    """

    plan: str = "plan.toml"
    output: str | None = None
    stage: str | None = None


def command(changes: Sequence[Change], place: Place) -> str | None:
    """The line that makes the next plan; None where nothing is to be set."""
    if not changes:
        return None
    of = f"stage.{place.stage}." if place.stage else ""
    words = ["autotrain", "plan", "--refresh", place.plan]
    words += [part for change in changes for part in ("--set", f"{of}{change.key}={change.value}")]
    return shlex.join([*words, *(["-o", place.output] if place.output else [])])


def _rate(plan: Plan, times: float) -> Change:
    return Change("optimizer.lr", _two(plan.optimizer.lr * times))


def _two(value: float) -> str:
    """Two significant digits: `0.0005`, `100`."""
    return f"{float(f'{value:.2g}'):g}"


def against_overfitting(plan: Plan, epoch: int) -> tuple[Change, ...]:
    """Stop in time, and decay weights more; a task's own dropout where it is an option."""
    found = []
    if plan.early_stop.patience is None:
        found.append(Change("early_stop.patience", str(PATIENCE)))
    elif plan.train.epochs > 2 * epoch:
        found.append(Change("train.epochs", str(max(round(1.5 * epoch), epoch + 1))))
    decay = plan.optimizer.weight_decay
    if decay < MOST_DECAY:
        found.append(
            Change("optimizer.weight_decay", f"{min(max(5 * decay, DECAY), MOST_DECAY):g}")
        )
    dropout = plan.task.options.get("dropout")
    if isinstance(dropout, int | float) and dropout < MOST_DROPOUT:
        more = min(max(dropout + 0.1, DROPOUT), MOST_DROPOUT)
        found.append(Change("task.dropout", f"{more:g}"))
    return tuple(found)


def against_underfitting(plan: Plan, *, falls: bool) -> tuple[Change, ...]:
    """A higher rate; twice the epochs where the loss was still on its way."""
    more = Change("train.epochs", str(2 * plan.train.epochs))
    return (_rate(plan, 3), more) if falls else (_rate(plan, 3),)


def against_plateau(plan: Plan) -> tuple[Change, ...]:
    """A lower rate, and a schedule that brings it down."""
    lower = _rate(plan, 1 / 3)
    falling = plan.schedule.name not in ("constant", "inverse_sqrt")
    return (lower,) if falling else (lower, Change("schedule.name", "cosine"))


def against_unstable(plan: Plan, usual_norm: float | None) -> tuple[Change, ...]:
    """A lower rate; gradients cut at their usual norm where they are not cut; no fp16."""
    found = [_rate(plan, 1 / 3)]
    if plan.optimizer.clip_norm is None:
        clip = min(max(usual_norm or 1.0, 1e-3), 1e3)
        found.append(Change("optimizer.clip_norm", _two(clip)))
    if plan.precision.dtype == "fp16":
        found.append(Change("precision.dtype", "fp32"))
    return tuple(found)


def by_precision(plan: Plan) -> str:
    """What precision has to do with it."""
    return ", and not fp16" if plan.precision.dtype == "fp16" else ""


def against_starving(plan: Plan, share: float) -> tuple[str, tuple[Change, ...]]:
    """As many workers as bring what the device takes, where there is a core for each."""
    workers, cores = plan.loader.workers, plan.inputs.cores
    wanted = starving.enough_workers(plan, share)
    if starving.taking_turns(plan):
        advice = (
            f"loading takes turns with the model on the same {cores} cores: decode or resize the "
            "samples once, beforehand; the next plan knows what loading took here, and whether a "
            "worker is worth a core"
        )
        return advice, (Change("loader.workers", "auto"),)
    said = "the model stands idle meanwhile: "
    if wanted is not None:
        return f"{said}more loader workers", (Change("loader.workers", str(wanted)),)
    if workers == 0:
        advice = f"{said}one loader worker reads ahead, though it takes a core from the model"
        return advice, (Change("loader.workers", "1"),)
    known = f"more than {workers} workers would find no free core of {cores}"
    advice = f"{said}{known}; samples that are kept once they are read, or decoded beforehand"
    if plan.loader.keep is None:
        return advice, (Change("loader.keep", "ram"),)
    return f"{said}{known}; decode or resize the samples once, beforehand", ()


def smaller_micro_batch(plan: Plan, healed: Sequence[Healed]) -> tuple[Change, ...]:
    """What the run itself came to, or a half."""
    to = [e.amends["batch.micro_batch"][1] for e in healed if "batch.micro_batch" in e.amends]
    now = int(to[-1]) if to and isinstance(to[-1], int) else plan.batch.micro_batch // 2
    return (Change("batch.micro_batch", str(max(now, 1))), *_freed(plan, "batch.accum_steps"))


def smaller_batch(plan: Plan) -> tuple[Change, ...]:
    """A quarter of the samples a step, in micro-batches that go into it."""
    least = plan.batch.world_size
    total = max(plan.batch.global_batch // 4 // least * least, least)
    parts = _freed(plan, "batch.micro_batch", "batch.accum_steps")
    return (Change("batch.global_batch", str(total)), *parts)


def _freed(plan: Plan, *keys: str) -> list[Change]:
    """Those of these settings that a person fixed, let go of: they follow from what is set now."""
    reasons = {key: plan.because.get(key.partition(".")[0], {}) for key in keys}
    fixed = [key for key, held in reasons.items() if _by_user(held.get(key.partition(".")[2]))]
    return [Change(key, "auto") for key in fixed]


def _by_user(reason: Reason | None) -> bool:
    return reason is not None and reason.kind == "user"


def shorter(plan: Plan, epoch: int | None) -> tuple[Change, ...]:
    """As many epochs as brought something, and a few."""
    enough = None if epoch is None else math.ceil(1.25 * epoch) + 1
    worth = enough is not None and enough <= 0.8 * plan.train.epochs
    return (Change("train.epochs", str(enough)),) if worth else ()


def longer(plan: Plan) -> tuple[Change, ...]:
    """Half as long again."""
    return (Change("train.epochs", str(math.ceil(1.5 * plan.train.epochs))),)
