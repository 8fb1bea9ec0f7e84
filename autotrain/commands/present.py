"""What is here now beside what a plan was made from, cheaply: no trace, no sample looked into."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from autotrain.commands.places import is_runs_own
from autotrain.errors import AutotrainError
from autotrain.events import Event, Started, Warned
from autotrain.plan.planner import machine_digest
from autotrain.plan.stale import (
    Change,
    changes,
    machine_inputs,
    memory_change,
    resumed_with_other_data,
)
from autotrain.schema import Device, HardwareProfile, InputsSection, Plan
from autotrain.task import Task, file_sha256

# Samples of a task's own data are loaded and compared only where the first takes less.
QUICK_SECONDS = 0.2


class Present(NamedTuple):
    """This machine, the code as it is now, and what is no longer as when the plan was made.

    `inputs`: what a plan would be made from now; of data that nobody looked at, the plan's word.
    """

    hardware: HardwareProfile
    sha256: str
    changes: list[Change]
    inputs: InputsSection


def look(plan: Plan, task: Task, task_file: Path, data: str | None) -> Present:
    """Takes milliseconds for a task's own data, and about 1 s for a folder of 100,000 files."""
    from autotrain.probe.hardware import probe_hardware

    hardware = probe_hardware(Path.cwd(), calibrate=False)
    device = hardware.device(plan.device.kind, plan.device.index)
    now = InputsSection.model_validate(
        {
            "hardware": machine_digest(hardware),
            "dataset": "",
            "model": "",
            **machine_inputs(hardware, device),
            **_data(plan, task, task_file, data),
        }
    )
    sha256 = file_sha256(task_file)
    found = [*_code(plan, sha256), *changes(plan.inputs, now)]
    short = memory_change(plan, _with_own(device)) if device is not None else None
    inputs = now.model_copy(update={"dataset": now.dataset or plan.inputs.dataset})
    return Present(hardware, sha256, [*found, short] if short is not None else found, inputs)


def _code(plan: Plan, now: str) -> list[Change]:
    """Code that has changed runs only where it is trusted; it is told all the same."""
    before = plan.task.sha256
    means = "what the plan says of the model may not hold"
    texts = (f"sha256 {before[:12]}...", f"{now[:12]}...")
    return [Change("task code", *texts, means)] if before != now else []


def model_changed(plan: Plan, parameters: int | None) -> list[Change]:
    """Whether the model that was built is of another size than the one planned for."""
    empty = InputsSection(hardware="", dataset="", model="", parameters=parameters)
    return changes(plan.inputs, empty)


def told(
    plan: Plan, started: Event, here: Present | None, path: Path, before: Plan | None
) -> list[Event]:
    """A warning for each thing that is no longer as the plan says, with the way out.

    And one for what a run that goes on computes with, where `before`, its plan so far, was for
    another.
    """
    found = [*here.changes] if here is not None else []
    resumed = False
    if isinstance(started, Started):
        found += model_changed(plan, started.parameters)
        resumed = started.resumed_from is not None
    advice = f"`autotrain plan --refresh {path}` makes the plan for what is here"
    if is_runs_own(path):  # that copy stays as it ran
        advice = f"`autotrain plan --refresh {path} -o plan.toml` makes a plan for what is here"
    said = [(str(change), advice) for change in found]
    if resumed and here is not None and before is not None:
        other = resumed_with_other_data(before.inputs, here.inputs)
        said += [(other, "")] if other is not None else []
    return [
        Warned(step=started.step, epoch=started.epoch, message=message, advice=advice)
        for message, advice in said
    ]


def _with_own(device: Device) -> Device:
    """On a CPU, what this process holds already is of what it may take."""
    if device.kind != "cpu":
        return device
    from autotrain.probe.limits import resident_bytes

    return device.model_copy(update={"free_bytes": device.free_bytes + resident_bytes()})


def _data(plan: Plan, task: Task, task_file: Path, data: str | None) -> dict[str, Any]:
    """Counts by the task, and the fingerprint that the plan's was made by; what is known of it."""
    from autotrain.probe.task_data import sample_count, valid_count

    found: dict[str, Any] = {}
    try:
        found["train_samples"] = sample_count(task.train, "training", task_file)
        found["valid_samples"] = valid_count(task, task_file)
        if plan.task.template is not None and data is not None:
            from autotrain.probe.dataset import data_now

            found["dataset"], found["data_bytes"] = data_now(Path(data))
        elif not plan.loader.workers:  # what a dataset opens here must not be shared with a worker
            found["dataset"] = _own_fingerprint(task, task_file, data)
    except AutotrainError:  # the run itself will say what is wrong with the data
        return found
    return found


def _own_fingerprint(task: Task, task_file: Path, data: str | None) -> str:
    """Of a task's own samples; empty where that would take long, or is not twice the same."""
    from autotrain.probe.task_data import loaded, spread_indices, task_dataset

    chosen = spread_indices(len(task.train))
    if task.length is not None or not chosen:
        return ""
    begun = time.perf_counter()
    loaded(task, task_file, chosen[:1])
    if time.perf_counter() - begun > QUICK_SECONDS:
        return ""
    once, again = (
        task_dataset(task, loaded(task, task_file, chosen).kept, data).fingerprint for _ in range(2)
    )
    return once if once == again else ""
