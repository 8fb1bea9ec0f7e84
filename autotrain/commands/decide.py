"""From a task to its plan: trace at a few sizes, decide, and check the choice by a trial."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from autotrain import __version__, planfile
from autotrain.commands import measuring, racing, replaying, trying
from autotrain.commands.measuring import NOTHING, Measures
from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.goal import Template
from autotrain.plan import buckets, cutting, host
from autotrain.plan.choices import choose_device
from autotrain.plan.execution import computed_again, untraced
from autotrain.plan.planner import (
    dtype_in_force,
    form_in_force,
    freeze_in_force,
    lengths_in_question,
    machine_digest,
    make_plan,
    size_in_question,
)
from autotrain.schema import (
    DatasetProfile,
    Dtype,
    Goal,
    HardwareProfile,
    ModelProfile,
    ModelSection,
    NoiseTest,
    Plan,
    Race,
    RangeTest,
    Replay,
    StepTrace,
    Trial,
)
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
    """A task that is traced, and what it is planned for.

    `seen`: every trace made so far, by the device it was to look like, size, dtype and length.
    `measured`: fields of the ModelProfile that real steps have found.
    """

    source: Source
    hardware: HardwareProfile
    goal: Goal
    tracer: ModelTracer
    dataset: DatasetProfile
    seen: dict[tuple[object, ...], StepTrace] = field(default_factory=dict, repr=False)
    measured: dict[str, RangeTest | NoiseTest | Race | tuple[Replay, ...]] = field(
        default_factory=dict, repr=False
    )

    @classmethod
    def open(
        cls, source: Source, hardware: HardwareProfile, goal: Goal, *, insist: bool = False,
        before: Decision | None = None,
    ) -> Case:  # fmt: skip
        """Load the task and trace it at the first sizes. Raises AutotrainError.

        `insist`: also where that takes real steps for which memory may not do. `before`: what
        was decided for the stage before this one.
        """
        from autotrain.probe.limits import resident_bytes
        from autotrain.probe.model import ModelTracer
        from autotrain.probe.task_data import task_dataset

        empty, task = resident_bytes(), load_task(source.task_file, source.data, goal.task.options)
        device = choose_device(hardware, goal)
        tracer = ModelTracer.open(task, source.task_file, device, insist=insist)
        tracer.loaded_bytes = max(resident_bytes() - empty, 0)
        if before is not None:
            # What it imported is there already when this one is looked at.
            tracer.loaded_bytes = max(tracer.loaded_bytes, before.model.loaded_bytes)
            follows, kept = before.model.follows + 1, host.kept_of(before.plan)
            tracer.traits |= {"follows": follows, "peak_before": kept}
        dataset = source.dataset or task_dataset(task, tracer.first, source.data)
        case = cls(source, hardware, goal, tracer, dataset)
        case._look()
        return case

    def on(self, hardware: HardwareProfile) -> Case:
        """The same for another machine; what looks alike there is not traced again."""
        device = choose_device(hardware, self.goal)
        tracer = replace(self.tracer, device=device, traces=[])
        case = replace(self, hardware=hardware, tracer=tracer)
        case._look()
        return case

    def raced(self, race: Race, replays: tuple[Replay, ...] = ()) -> Case:
        """The same after a race, whose winner may compute in another precision."""
        case = replace(self, measured={**self.measured, "race": race, "replays": replays})
        form, dtype = case._form(), case._dtype(self.goal)
        sizes = {t.micro_batch for t in self.tracer.traces if (t.dtype, t.form) == (dtype, form)}
        if len(sizes) < len(FIRST_TRACES):
            case._look()
        return case

    def _dtype(self, goal: Goal) -> Dtype:
        return dtype_in_force(self.hardware, goal, self._race())

    def _form(self) -> ModelSection:
        return form_in_force(self.hardware, self.goal, self._race())

    def _race(self) -> Race | None:
        race = self.measured.get("race")
        return race if isinstance(race, Race) else None

    def _look(self) -> None:
        """The first traces, from which a plan can be made."""
        from autotrain.probe.task_data import total_count

        hardware, tracer, goal = self.hardware, self.tracer, self.goal
        count = total_count(tracer.task, tracer.path)
        tracer.freeze(freeze_in_force(hardware, goal, count))
        dtype, form = self._dtype(goal), self._form()
        self._trace(FIRST_TRACES[0], dtype, form)
        self._trace(_second(hardware, tracer, goal), dtype, form)
        for length in lengths_in_question(hardware, tracer.profile(), goal):
            for micro_batch in FIRST_TRACES:
                self._trace(micro_batch, dtype, form, length)

    def _look_again(self) -> bool:
        """Trace what was traced once more, activations computed again; whether that was news."""
        if not untraced(self.tracer.profile()):
            return False
        try:
            for t in [*self.tracer.traces]:
                self._trace(t.micro_batch, t.dtype, computed_again(t.form), t.length)
        except AutotrainError as error:
            print(f"warning: {error.message}", file=sys.stderr)
            return False
        return True

    def _trace(
        self, micro_batch: int, dtype: Dtype, form: ModelSection, length: float = 0.0
    ) -> None:
        """Trace a step, or take the trace that was made for a device that looks the same."""
        known = self.seen.get((*self._looks(), micro_batch, dtype, length, form))
        if known is not None:
            self.tracer.traces.append(known)
            return
        made = self.tracer.trace(micro_batch, dtype, length, form)
        self.seen[(*self._looks(), micro_batch, dtype, length, form)] = made

    def step(self, micro_batch: int, dtype: Dtype, form: ModelSection) -> StepTrace:
        """The trace of such a step of the longest samples, made now if it was not yet."""
        made = self.tracer.traces
        wanted = (micro_batch, dtype, form, max(t.length for t in made))
        found = [t for t in made if (t.micro_batch, t.dtype, t.form, t.length) == wanted]
        if not found:
            self._trace(micro_batch, dtype, form)
        return found[0] if found else made[-1]

    def _looks(self) -> tuple[object, ...]:
        """All that a trace depends on of the device (nothing where steps run for real, here), and
        what is frozen in it."""
        device, tracer = self.tracer.device, self.tracer
        if tracer.mode is None or device is None:
            return (tracer.mode is None, tracer.patterns)
        return (device.kind, device.compute_capability, tracer.patterns)

    def decide(self, trials: tuple[Trial, ...] = (), goal: Goal | None = None) -> Decision:
        """Plan in the light of these trials, and trace what was chosen until it stays."""
        goal = goal or self.goal
        made = self._fitted(goal, trials)
        for _ in range(CHECKS):
            form = made.plan.model.uncompiled()
            missing = _unchecked(self.tracer, made.plan, form)
            if not missing:
                break
            for micro_batch, length in missing:
                self._trace(micro_batch, self._dtype(goal), form, length)
            made = self._fitted(goal, trials)
        return made

    def _fitted(self, goal: Goal, trials: tuple[Trial, ...]) -> Decision:
        """A plan; where too few samples fit, what it saves to compute again is looked at."""
        try:
            made = self._made(goal, trials)
        except DoesNotFitError:
            if not self._look_again():
                raise
            return self._made(goal, trials)
        over = made.plan.predicted.device_peak_bytes.high > made.plan.memory.budget_bytes
        few = over or cutting.short(made.model, made.plan.because)
        return self._made(goal, trials) if few and self._look_again() else made

    def _made(self, goal: Goal, trials: tuple[Trial, ...]) -> Decision:
        """Raises UsageError where what the user set leads to values that no plan may have."""
        model = self.tracer.profile().model_copy(update={"trials": trials, **self.measured})
        try:
            plan = make_plan(self.hardware, self.dataset, model, goal, version=__version__)
        except ValidationError as error:
            faults = planfile.faults(error, Plan)
            hint = "look at what was set with --set, or by the recipe"
            raise UsageError(*faults, hint=hint) from None
        return Decision(self.dataset, model, plan)


def _second(hardware: HardwareProfile, tracer: ModelTracer, goal: Goal) -> int:
    """The second size to trace: what the plan may choose, unless it is a lot to look ahead to."""
    model, (first, usual) = tracer.profile(), FIRST_TRACES
    wanted = size_in_question(hardware, model, goal)
    if tracer.mode is None or wanted <= first or wanted * model.sample_bytes > MOST_BATCH_BYTES:
        return usual
    return wanted


def _unchecked(tracer: ModelTracer, made: Plan, form: ModelSection) -> list[tuple[int, float]]:
    """Sizes and lengths that were chosen and not traced yet; a step for real is not repeated."""
    if tracer.mode is None:
        return []
    longest = max(t.length for t in tracer.traces)
    seen = {(t.micro_batch, t.length) for t in tracer.traces if t.form == form}
    chosen = buckets.to_check(made.batch, tracer.profile())
    return [(micro, length) for micro, length in chosen if (micro, length or longest) not in seen]


def decide(
    source: Source,
    hardware: HardwareProfile,
    goal: Goal,
    *,
    trial: bool | None = False,
    here: bool = False,
    measures: Measures = NOTHING,
    before: Decision | None = None,
) -> Decision:
    """The plan. `trial`: corrected by real steps (True), by the trace alone (False), or as
    AUTOTRAIN_TRIAL says: by default, where the device is here and the steps take seconds (None).

    `here`: it is known to be this machine; else that is compared. `measures`: real steps for these
    are taken before a trial (its size follows from the noise) and after it.
    """
    wish = trying.wished(trial)
    this = here or ((wish is not False or any(measures)) and _is_here(hardware))
    measures.insist_here(hardware, here=this)
    here = wish is not False and this
    if wish and not here:
        raise AutotrainError(
            f"a trial for {hardware.name} cannot be made on another machine",
            "leave --trial out, or --machine",
        )
    case = Case.open(source, hardware, goal, insist=bool(wish), before=before)
    made = (case := measuring.noise_measured(case) if measures.noise else case).decide()
    here = here and trying.possible(made.plan, forced=bool(wish))
    if replaying.alone(trial, here, made.plan) and (this or _is_here(hardware)):
        case, made = replaying.played(case, made)
    elif here:
        case = racing.raced(case, made, forced=bool(wish))
        made = case.decide() if "race" in case.measured else made
    made = trying.tried(case, made, forced=bool(wish)) if here else made
    return measuring.rate_found(case, made) if measures.find_lr else made


def _is_here(hardware: HardwareProfile) -> bool:
    """Whether the machine planned for is this one."""
    from autotrain.probe.hardware import probe_hardware

    this = probe_hardware(Path.cwd(), calibrate=False)
    return machine_digest(this) == machine_digest(hardware)
