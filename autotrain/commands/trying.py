"""Trials of a plan: when one is made, for how long, and what follows from what comes of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.plan.planner import machine_digest, model_digest
from autotrain.schema import HardwareProfile, Plan, Trial
from autotrain.sensors import Quiet
from autotrain.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from autotrain.commands.decide import Case, Decision, Source

# A trial is made unasked where it is predicted to take less than this; it is stopped when it
# takes three times what was predicted, within these bounds. One that was asked for may take
# that, and at least ASKED_SECONDS.
UNASKED_SECONDS = 20.0
LEAST_SECONDS, MOST_SECONDS, ASKED_SECONDS = 20.0, 60.0, 180.0
# Python, torch and what a run imports, in the child, on a slow disk.
START_SECONDS = 5.0
TRIES = 3
# What a run has loaded before its first step.
RUN_IMPORTS = (
    "autotrain.commands.run",
    "autotrain.run.loop",
    "autotrain.report.console",
    "autotrain.report.log",
    "autotrain.report.scalars",
    "autotrain.report.live",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.summary.writer.record_writer",
)


def wished(trial: bool | None) -> bool | None:
    """What the command line says, or else the environment."""
    word = os.environ.get("AUTOTRAIN_TRIAL", "")
    if word not in ("", "on", "off"):
        raise UsageError(f"AUTOTRAIN_TRIAL: {word!r}", hint="it is on, off, or not set")
    return {"on": True, "off": False}.get(word) if trial is None else trial


def possible(plan: Plan, *, forced: bool) -> bool:
    """Whether one process can take steps of a plan. Raises AutotrainError where it has to."""
    whole = plan.parallel.strategy != "shard" or plan.batch.world_size == 1
    if forced and not whole:
        raise AutotrainError(
            "a trial takes its steps in one process, and this model is divided among "
            f"{plan.batch.world_size}",
            "leave --trial out",
        )
    return whole


def tried(case: Case, made: Decision, *, forced: bool) -> Decision:
    """The decision after trials at what it chose, until what is chosen has been tried.

    Raises AutotrainError where the task's own code fails in one, DoesNotFitError where memory
    ran out whatever was chosen.
    """
    from autotrain.probe import history, trials
    from autotrain.probe.child import setup_of

    machine = machine_digest(case.hardware)
    key = trials.key(model_digest(made.model), case.dataset.fingerprint, case.goal.task)
    known, fault = trials.recall(machine, key)
    ran, torn = history.recall(machine)
    for said in filter(None, (fault, torn)):
        print(f"warning: {said}", file=sys.stderr)
    known = (*known, *(run.trial for run in ran if run.key == key))
    if forced:
        known = tuple(t for t in known if not _is_of(t, setup_of(made.plan)))
    before, made = made, case.decide(known) if known else made
    for _ in range(TRIES):
        done = any(_is_of(t, setup_of(made.plan)) and knows_memory(t) for t in known)
        if done or not (forced or quick(made.plan)) or not possible(made.plan, forced=False):
            break
        quiet = Quiet()
        before, trial = made, take(case.source, made.plan, case.hardware, forced=forced)
        _insist(trial)
        if quiet.disturbed() is not None:  # bytes are bytes, but seconds are others' as well
            trial = trial.model_copy(update={"micro_seconds": None, "update_seconds": None})
        known = (*known, trial)
        # Where memory ran out, others may have held it: that is no news of the model.
        own = [t for t in known if t.outcome != "out_of_memory" and not t.of_run]
        trials.keep(machine, key, own)
        made = case.decide(known)
        print(told(trial, before.plan, made.plan), file=sys.stderr)
    refuse_what_ran_out(made.plan, known)
    return made


def _is_of(trial: Trial, setup: dict[str, object]) -> bool:
    return all(getattr(trial, name) == value for name, value in setup.items())


def knows_memory(trial: Trial) -> bool:
    """Whether it says what a step takes, as every trial does; a run may know its times alone."""
    return not trial.of_run or bool(trial.device_peak_bytes or trial.reserved_peak_bytes)


def predicted_seconds(plan: Plan) -> float:
    """What a trial takes at most: its start, its steps, and as much as another for validation."""
    from autotrain.probe.child import STEPS

    parts = len(plan.batch.buckets) if plan.batch.buckets else min(plan.batch.accum_steps, 2)
    share = min(parts / plan.batch.accum_steps, 1.0)
    return START_SECONDS + (STEPS + 1) * share * plan.predicted.step_seconds.high


def quick(plan: Plan) -> bool:
    """Whether a trial of it is short enough to be made unasked."""
    return predicted_seconds(plan) < UNASKED_SECONDS


def take(
    source: Source,
    plan: Plan,
    hardware: HardwareProfile,
    *,
    forced: bool = True,
    tensors: bool = False,
) -> Trial:
    """One trial of a plan in a child process, with an end to it.

    `tensors`: the CPU's allocator is followed as well, which takes time.
    """
    from autotrain.probe.child import Request, take_steps

    seconds = max(3 * predicted_seconds(plan), LEAST_SECONDS)
    seconds = max(seconds, ASKED_SECONDS) if forced else min(seconds, MOST_SECONDS)
    request = Request(
        plan=plan,
        task_file=str(source.task_file),
        data=source.data,
        imports=RUN_IMPORTS,
        tensors=tensors,
    )
    device = hardware.device(plan.device.kind, plan.device.index)
    most = device.free_bytes if device is not None and device.kind == "cpu" else None
    return take_steps(request, seconds=seconds, most_bytes=most)


def _insist(trial: Trial) -> None:
    """Raise AutotrainError where a run of this task would fail, too."""
    if trial.outcome in ("failed", "not_finite"):
        hint = trial.hint or "--no-trial plans without real steps"
        raise AutotrainError(f"in a trial of the plan: {trial.message}", hint)


def refuse_what_ran_out(plan: Plan, known: tuple[Trial, ...]) -> None:
    """Raise DoesNotFitError where memory ran out at the plan's size, or at TRIES sizes."""
    from autotrain.probe.child import setup_of

    lost = [t for t in known if t.outcome == "out_of_memory"]
    if len(lost) >= TRIES or any(_is_of(t, setup_of(plan)) for t in lost):
        sizes = ", ".join(str(size) for size in sorted({t.micro_batch for t in lost}))
        raise DoesNotFitError(
            f"memory ran out in a trial at micro_batch {sizes}: {lost[-1].message}",
            "a smaller batch.micro_batch or model, or close other programs;"
            " --no-trial plans without real steps",
        )


def told(trial: Trial, before: Plan, after: Plan) -> str:
    """One line for a person: what was tried, and what came of it."""
    size = f"micro_batch {trial.micro_batch}"
    if trial.outcome == "timed_out":
        return f"tried {size}: {trial.message}; the plan stays as predicted (--trial waits longer)"
    if trial.outcome == "out_of_memory":
        now = after.batch.micro_batch
        then = f"; planned again with {now}" if now != trial.micro_batch else ""
        return f"tried {size}: memory ran out ({trial.message}){then}"
    said = before.predicted.device_peak_bytes
    took = trial.device_peak_bytes
    if took is None:
        said, took = before.predicted.reserved_peak_bytes, trial.reserved_peak_bytes or 0
    workers = before.loader.workers
    beside = f" with {workers} loader workers" if workers and trial.device == "cpu" else ""
    return (
        f"tried {trial.steps} steps at {size}: {bytes_text(took)}, predicted "
        f"{bytes_text(said.expected)}{beside} ({bytes_text(said.low)} to {bytes_text(said.high)}); "
        f"{_step_text(trial, after)}" + (f"; {trial.message}" if trial.message else "")
    )


def _step_text(trial: Trial, after: Plan) -> str:
    if trial.micro_seconds is None:
        return "beside other programs, which is why its seconds do not count"
    return f"{seconds_text(after.predicted.step_seconds.expected)} a step"
