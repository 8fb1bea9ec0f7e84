"""From a task to its plan: trace at a few sizes, decide, and check the choice by a trial."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from autotrain import __version__, planfile
from autotrain.commands import trying
from autotrain.errors import AutotrainError, UsageError
from autotrain.goal import Template
from autotrain.plan.buckets import to_check
from autotrain.plan.choices import choose_device
from autotrain.plan.planner import (
    dtype_in_force,
    lengths_in_question,
    machine_digest,
    make_plan,
    size_in_question,
)
from autotrain.schema import DatasetProfile, Goal, HardwareProfile, ModelProfile, Plan, Trial
from autotrain.task import load_task
from autotrain.units import MIB

if TYPE_CHECKING:
    from autotrain.probe.model import ModelTracer

FIRST_TRACES = (2, 8)
MOST_BATCH_BYTES = 64 * MIB
CHECKS = 3


class Source(NamedTuple):
    """The code and data that a plan is for, and what was seen of the data on the way."""

    task_file: Path
    template: Template | None
    shipped: bool
    data: str | None
    dataset: DatasetProfile | None


class Decision(NamedTuple):
    """What was decided, and on what grounds."""

    dataset: DatasetProfile
    model: ModelProfile
    plan: Plan


@dataclass(frozen=True)
class Case:
    """A task that is traced, and what it is planned for."""

    source: Source
    hardware: HardwareProfile
    goal: Goal
    tracer: ModelTracer
    dataset: DatasetProfile

    @classmethod
    def open(
        cls, source: Source, hardware: HardwareProfile, goal: Goal, *, insist: bool = False
    ) -> Case:
        """Load the task and trace it at the first sizes. Raises AutotrainError.

        `insist`: also where that takes real steps for which memory may not do.
        """
        from autotrain.probe.limits import resident_bytes
        from autotrain.probe.model import ModelTracer
        from autotrain.probe.task_data import task_dataset

        before = resident_bytes()
        task = load_task(source.task_file, source.data, goal.task.options)
        device = choose_device(hardware, goal)
        tracer = ModelTracer.open(task, source.task_file, device, insist=insist)
        tracer.loaded_bytes = max(resident_bytes() - before, 0)
        dataset = source.dataset or task_dataset(task, tracer.samples, source.data)
        dtype = dtype_in_force(hardware, goal)
        tracer.trace(FIRST_TRACES[0], dtype)
        tracer.trace(_second(hardware, tracer, goal), dtype)
        for length in lengths_in_question(hardware, tracer.profile(), goal):
            for micro_batch in FIRST_TRACES:
                tracer.trace(micro_batch, dtype, length)
        return cls(source, hardware, goal, tracer, dataset)

    def decide(self, trials: tuple[Trial, ...] = (), goal: Goal | None = None) -> Decision:
        """Plan in the light of these trials, and trace what was chosen until it stays."""
        goal = goal or self.goal
        made = self._made(goal, trials)
        for _ in range(CHECKS):
            missing = _unchecked(self.tracer, made.plan)
            if not missing:
                break
            dtype = dtype_in_force(self.hardware, goal)
            for micro_batch, length in missing:
                self.tracer.trace(micro_batch, dtype, length)
            made = self._made(goal, trials)
        return made

    def _made(self, goal: Goal, trials: tuple[Trial, ...]) -> Decision:
        """Raises UsageError where what the user set leads to values that no plan may have."""
        model = self.tracer.profile().model_copy(update={"trials": trials})
        try:
            plan = make_plan(self.hardware, self.dataset, model, goal, version=__version__)
        except ValidationError as error:
            faults = planfile.faults(error, Plan)
            raise UsageError(
                *faults, hint="look at what was set with --set, or by the recipe"
            ) from None
        return Decision(self.dataset, model, plan)


def _second(hardware: HardwareProfile, tracer: ModelTracer, goal: Goal) -> int:
    """The second size to trace: what the plan may choose, unless it is a lot to look ahead to."""
    model, (first, usual) = tracer.profile(), FIRST_TRACES
    wanted = size_in_question(hardware, model, goal)
    if tracer.mode is None or wanted <= first or wanted * model.sample_bytes > MOST_BATCH_BYTES:
        return usual
    return wanted


def _unchecked(tracer: ModelTracer, made: Plan) -> list[tuple[int, float]]:
    """Sizes and lengths that were chosen and not traced yet; a step for real is not repeated."""
    if tracer.mode is None:
        return []
    longest = max(t.length for t in tracer.traces)
    seen = {(t.micro_batch, t.length) for t in tracer.traces}
    chosen = to_check(made.batch, tracer.profile())
    return [(micro, length) for micro, length in chosen if (micro, length or longest) not in seen]


def decide(
    source: Source,
    hardware: HardwareProfile,
    goal: Goal,
    *,
    trial: bool | None = False,
    here: bool = False,
) -> Decision:
    """The plan. `trial`: corrected by real steps (True), by the trace alone (False), or as
    AUTOTRAIN_TRIAL says: by default, where the device is here and the steps take seconds (None).

    `here`: the machine is known to be this one; else it is compared.
    """
    wish = _wish(trial)
    here = wish is not False and (here or _is_here(hardware))
    if wish and not here:
        raise AutotrainError(
            f"a trial for {hardware.name} cannot be made on another machine",
            "leave --trial out, or --machine",
        )
    case = Case.open(source, hardware, goal, insist=bool(wish))
    made = case.decide()
    return trying.tried(case, made, forced=bool(wish)) if here else made


def _wish(trial: bool | None) -> bool | None:
    """What the command line says, or else the environment."""
    word = os.environ.get("AUTOTRAIN_TRIAL", "")
    if word not in ("", "on", "off"):
        raise UsageError(f"AUTOTRAIN_TRIAL: {word!r}", hint="it is on, off, or not set")
    return {"on": True, "off": False}.get(word) if trial is None else trial


def _is_here(hardware: HardwareProfile) -> bool:
    """Whether the machine planned for is this one."""
    from autotrain.probe.hardware import probe_hardware

    this = probe_hardware(Path.cwd(), calibrate=False)
    return machine_digest(this) == machine_digest(hardware)
