"""How often to evaluate, save and log, and how many checkpoints to keep, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from autotrain.errors import DoesNotFitError
from autotrain.plan import cadence, due
from autotrain.plan.cadence import Pace
from autotrain.plan.due import AT_STAKE_MINUTES, Interval, Times
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import INTERRUPTION_HOURS, Beside
from autotrain.units import GIB, bytes_text, seconds_text

# A shorter save is waited for. A copy for it may take so much of the free RAM beside a GPU.
FELT_SECONDS, RAM_SHARE = 0.1, 0.2

_OURS = "autotrain's rule"
_ORIGIN = "the speech autoencoder that autotrain grew out of"
_DALY = "Young 1974, doi:10.1145/361147.361115; Daly 2006, doi:10.1016/j.future.2004.11.016"


def decide(ledger: Ledger, sizing: Sizing, epochs: int) -> None:
    """How often to evaluate, save and log, and how many checkpoints to keep, in order."""
    due.other_goes(ledger)
    times = Times.of(sizing)
    evaluates = _evaluations(ledger, times, epochs)
    _risks(ledger, sizing)
    _checkpoints(ledger, times, epochs, evaluates)
    _keep(ledger, sizing)
    _background(ledger, sizing, times)
    _wishes(ledger)
    step = times.step.expected
    ledger.settle(
        "run.log_every_steps",
        cadence.log_every(step, sizing.total_steps()),
        formula=f"{seconds_text(step)} a step: about one line a second, at least 50 in a run, "
        "at most 100 steps apart",
        source=_OURS,
    )


def _evaluations(ledger: Ledger, times: Times, epochs: int) -> Pace:
    rule = due.evaluating(ledger, times, epochs)
    used = due.in_force(ledger, "evaluate", rule)
    shape = _shape(times, epochs, rule)
    ledger.settle(
        "evaluate.every_epochs",
        rule.every_epochs,
        formula="it goes by steps instead" if rule.every_epochs is None else shape,
        source=_OURS,
    )
    ledger.settle(
        "evaluate.every_steps",
        rule.every_steps,
        formula="it goes by epochs" if rule.every_steps is None else shape,
        source=_OURS,
        would_change="--set evaluate.every_steps=500",
    )
    return used


def _shape(times: Times, epochs: int, rule: Pace) -> str:
    """How often the model is tried, by which of the rules."""
    epoch, least = times.per_epoch * times.step.expected, cadence.LEAST_EVALUATIONS
    cost = times.evaluation.expected + times.save / 2
    said = (
        f"an epoch takes {seconds_text(epoch)}, an evaluation "
        f"{seconds_text(times.evaluation.expected)} and half a save of the best "
        f"{seconds_text(times.save / 2)}"
    )
    every = rule.every_epochs
    if every is None:
        if epoch >= cadence.HOUR:
            return f"{said}: more often than once an epoch, so that no hour passes without"
        return f"{said}: more often than once an epoch, so that {epochs} epochs have {least} or so"
    often = "after each epoch" if every == 1 else f"every {every} epochs"
    adds, share = cost / max(every * epoch, 1e-12), cadence.EVALUATION_SHARE
    if adds > share:
        return f"{said}: {often}, which adds {adds:.0%}; a run is to have {least}, or one an epoch"
    rarer = f"; after each one would add over {share:.0%}" if every > 1 else ""
    return f"{said}: {often}, which adds {adds:.1%}{rarer}"


def _risks(ledger: Ledger, sizing: Sizing) -> None:
    hardware = sizing.hardware
    kind = cadence.machine_kind(hardware)
    signs = "a battery, or its name" if kind == "laptop" else "the names of its parts, no battery"
    words = ", ".join(f"{word} {hours:g}" for word, hours in INTERRUPTION_HOURS.items())
    ledger.settle(
        "checkpoint.interruption_hours",
        cadence.interruption_hours(hardware),
        formula=f"{hardware.name}'s profile says so"
        if hardware.interruption_hours
        else f"taken for a {kind} ({signs}); hours by kind: {words}",
        source="docs/formulas.md; autotrain's rule, but for the measured figure of spot instances",
        would_change="--set checkpoint.interruption_hours=spot, or a number of hours, or off",
    )
    ledger.settle(
        "checkpoint.at_stake_minutes",
        AT_STAKE_MINUTES,
        formula="a quarter of an hour: work that one is willing to wait for a second time",
        source=_OURS,
        would_change="--set checkpoint.at_stake_minutes=5, or off",
    )


def _checkpoints(ledger: Ledger, times: Times, epochs: int, evaluates: Pace) -> None:
    most = due.interval(ledger, times, epochs, evaluates)
    rule, fifth = (
        due.saving(ledger, most, times.per_epoch, epochs),
        cadence.epochs_fifth_rule(epochs),
    )
    origin, said = f"{epochs} epochs / 5, rounded down", _said(ledger, times, most, epochs)
    binding = rule.every_epochs == fifth
    apart = f"{_upto(most)}{seconds_text(fifth * times.per_epoch * most.each)}"
    why_not = f"{apart} of work; the most is {said}"
    between = f"{origin}: {apart} of work from one to the next. The most would be"
    formula = f"{between} {said}" if binding else said
    ledger.settle(
        "checkpoint.every_epochs",
        rule.every_epochs,
        formula=formula if rule.every_epochs else "it goes by steps instead",
        source=_ORIGIN if binding else _DALY,
        limited_by="train.epochs" if binding else most.limited_by if rule.every_epochs else "",
        beside=()
        if binding
        else (Beside(name="epochs_fifth_rule", value=fifth, formula=origin, why_not=why_not),),
    )
    ledger.settle(
        "checkpoint.every_steps",
        rule.every_steps,
        formula=said if rule.every_steps else "saves by epochs are often enough",
        source=_DALY,
        limited_by=most.limited_by if rule.every_steps else "",
        would_change="--set checkpoint.every_steps=500",
    )


def _said(ledger: Ledger, times: Times, most: Interval, epochs: int) -> str:
    """The interval in words."""
    hours = due.hours(ledger, times.hardware)
    whole = epochs * times.per_epoch
    each = f"{_upto(most)}{seconds_text(most.each)}"
    steps = f"{most.steps} steps of {each}, evaluations included"
    if most.steps >= whole:
        steps = f"longer than the run's {whole} steps of {each}"
    if not most.limited_by:
        return "the whole run: no interruption is expected, and nothing limits what is at stake"
    work = f"{seconds_text(most.seconds)} of work ({steps})"
    if hours is None:
        return f"{work}, which may be at stake"
    share = cadence.expected_share(most.seconds, times.save, 3600 * hours) - 1
    cost = f"saves, and what interruptions undo, add about {100 * share:.2g} %"
    save = f"a save takes {seconds_text(times.save)}"
    between = f"an interruption comes every {seconds_text(3600 * hours)}"
    if most.limited_by == "checkpoint.interruption_hours":
        return f"{work}, the best where {save} and {between}: {cost}"
    return f"{work}, which may be at stake; {save} and {between}: {cost}"


def _upto(most: Interval) -> str:
    """Before what steps of that limit take: as long as they may, or as they are expected to."""
    return "up to " * (most.limited_by == "checkpoint.at_stake_minutes")


def _keep(ledger: Ledger, sizing: Sizing) -> None:
    size, free = sizing.checkpoint_bytes().high, sizing.hardware.disk.free_bytes
    kept = cadence.keep(size, free)
    ledger.settle(
        "checkpoint.keep",
        kept,
        formula=f"up to {bytes_text(size)} each, {bytes_text(free)} free: {cadence.KEEP}, or what "
        f"leaves room for the best, an interrupted one, one being written, and {bytes_text(GIB)}",
        source=_OURS,
        limited_by="the disk" if kept < cadence.KEEP else "",
    )


def _wishes(ledger: Ledger) -> None:
    ledger.settle(
        "checkpoint.grace_seconds",
        None,
        formula="not known: a spot machine gives 30 to 120 s, Slurm 30 s (KillWait), docker 10 s",
        source="the clouds' documentation; slurm.conf(5); docker stop",
        kind="fixed",
        would_change="--set checkpoint.grace_seconds=30, and the plan says whether a save fits",
    )

    ledger.settle(
        "checkpoint.mirror",
        None,
        formula="nobody named a place: checkpoints are lost with the disk that they lie on",
        source=_OURS,
        kind="fixed",
        would_change="--set checkpoint.mirror=/mnt/backup, s3://bucket/folder, sftp://host/folder",
    )


def _background(ledger: Ledger, sizing: Sizing, times: Times) -> None:
    """Whether training goes on while a checkpoint is written."""
    size = sizing.saved_bytes()
    if sizing.device.kind == "cpu":
        beside = sizing.planned()._replace(background=True)
        takes = sizing.device_peak(beside, sizing.time.workers()).high + sizing.kept_bytes()
        room = sizing.budget()
        where = f"steps beside a copy take up to {bytes_text(takes)} of {bytes_text(room)}"
    else:
        takes, room = 1.1 * size, RAM_SHARE * sizing.hardware.ram_available_bytes
        where = f"a copy takes {bytes_text(size)} of RAM, of which {bytes_text(room)} may go to it"
    against = {
        "several processes train, and save together": sizing.processes() > 1,
        f"a save takes {seconds_text(times.save)}, which is not felt": times.save < FELT_SECONDS,
        f"there is no room: {where}": takes > room,
    }
    why = [reason for reason, so in against.items() if so]
    ledger.settle(
        "checkpoint.background",
        not why,
        formula="; ".join(why)
        or f"a save takes {seconds_text(times.save)}, during which training goes on; {where}",
        source=_OURS,
        limited_by="memory" if takes > room else "",
        would_change="--set checkpoint.background=true or false",
    )


# --- what the disk holds, and what is at stake ---------------------------------------------


def room_on_disk(sizing: Sizing) -> None:
    """Raises DoesNotFitError where the disk cannot hold the fewest checkpoints of a run."""
    size, disk = sizing.checkpoint_bytes().high, sizing.hardware.disk
    need = cadence.least_disk_bytes(size)
    if disk.free_bytes < need:
        raise DoesNotFitError(
            f"{disk.path}: {bytes_text(disk.free_bytes)} free; a run needs {bytes_text(need)}, "
            f"for one checkpoint, the best, and one being written, of {bytes_text(size)} each",
            f"free {bytes_text(need - disk.free_bytes)} more, or plan from a folder on a larger "
            "disk",
        )


def remarks(ledger: Ledger, sizing: Sizing) -> Iterator[str]:
    """What the user should know of what they fixed, and of the disk."""
    chosen, per_epoch = ledger.values["checkpoint"], sizing.steps_per_epoch()
    epochs = sizing.count("train.epochs")
    by_epochs = (chosen["every_epochs"] or 0) * per_epoch
    steps = min(s for s in (by_epochs, chosen["every_steps"], epochs * per_epoch) if s)
    evaluates = Pace(**ledger.values["evaluate"])
    at_stake = steps * Times.of(sizing).each(epochs, evaluates).high
    minutes = chosen["at_stake_minutes"]
    if minutes is not None and at_stake > 60 * minutes * (1 + 1e-9) and steps > 1:
        yield (
            f"up to {seconds_text(at_stake)} of work is at stake between saves, more than "
            f"checkpoint.at_stake_minutes {minutes:g}"
        )
    grace, last = chosen["grace_seconds"], sizing.time.micro_seconds() + Times.of(sizing).save
    if grace is not None and last > grace:
        yield (
            f"a micro-batch and a save take {seconds_text(last)}, more than the "
            f"{seconds_text(grace)} of checkpoint.grace_seconds: a run that is told to end "
            "loses what came after its newest checkpoint"
        )
    disk, keep = sizing.hardware.disk, chosen["keep"]
    need = cadence.disk_bytes(sizing.checkpoint_bytes().high, keep)
    if need > disk.free_bytes:
        yield (
            f"{keep} kept, and up to {cadence.BESIDES} others, checkpoints take up to "
            f"{bytes_text(need)}; {bytes_text(disk.free_bytes)} are free"
        )
