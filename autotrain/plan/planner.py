"""Profiles and a goal in, a plan out: every setting decided in order, each with its reason.

Pure arithmetic: no torch, no I/O, milliseconds. The order matters, because later settings
are computed from the values in force of earlier ones.
"""

from __future__ import annotations

from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.plan import cadence, choices, pace
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import (
    DatasetProfile,
    Device,
    Dtype,
    Goal,
    HardwareProfile,
    InputsSection,
    ModelProfile,
    Plan,
)
from autotrain.units import bytes_text


def make_plan(
    hardware: HardwareProfile,
    dataset: DatasetProfile,
    model: ModelProfile,
    goal: Goal,
    *,
    version: str,
) -> Plan:
    """Decide every setting. `model.traces` must hold the dtype in force (`dtype_in_force`).

    Raises DoesNotFitError where not even one sample fits, or the disk cannot hold a run.
    """
    device = _device(hardware, goal)
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    choices.identity(ledger, goal)
    choices.machine(ledger, hardware, device)
    train_count, valid_count = choices.data(ledger, model)
    choices.optimizer(ledger, device)
    choices.precision(ledger, device)
    sizing = Sizing(ledger, hardware, device, model, train_count, valid_count)
    sizing.batch()
    pace.decide(ledger, sizing)
    sizing.loader()
    sizing.predictions()
    _room_on_disk(hardware, sizing)
    inputs = InputsSection(
        hardware=hardware.digest(), dataset=dataset.fingerprint, model=model.digest()
    )
    return Plan.model_validate(
        {
            "made_by": f"autotrain {version}",
            "recipe": goal.recipes[-1].name if goal.recipes else "rules",
            **ledger.values,
            "inputs": inputs,
            "notes": tuple(_notes(dataset, model, sizing)),
            "because": ledger.because,
        }
    )


def dtype_in_force(hardware: HardwareProfile, goal: Goal) -> Dtype:
    """The precision a plan will take: which traces it needs."""
    device = _device(hardware, goal)
    return choices.precision(Ledger(goal, 0, device.kind), device)


def _device(hardware: HardwareProfile, goal: Goal) -> Device:
    try:
        return choices.choose_device(hardware, goal)
    except (ValueError, IndexError):
        there = ", ".join(f"{d.kind}:{d.index}" for d in hardware.devices)
        wanted = f"{goal.user.get('device.kind', '')}:{goal.user.get('device.index', 0)}"
        raise AutotrainError(f"{hardware.name} has no device {wanted}", f"it has {there}") from None


def _room_on_disk(hardware: HardwareProfile, sizing: Sizing) -> None:
    size, free = sizing.checkpoint_bytes().high, hardware.disk.free_bytes
    need = cadence.disk_bytes(size, 1) - size
    if free < need:
        raise DoesNotFitError(
            f"{hardware.disk.path}: {bytes_text(free)} free, two checkpoints need "
            f"{bytes_text(need)}",
            "free space, or plan from a folder on a larger disk",
        )


def _notes(dataset: DatasetProfile, model: ModelProfile, sizing: Sizing) -> list[str]:
    notes = []
    chosen = sizing.ledger.values["batch"]
    if dataset.faults:
        first = dataset.faults[0]
        notes.append(f"{len(dataset.faults)} faults in the data: {first.path}: {first.problem}")
    if model.batch_norm and chosen["accum_steps"] > 1:
        notes.append(
            "the model has BatchNorm, which sees one micro-batch at a time: accumulating "
            f"{chosen['accum_steps']} of them is not the same as one batch"
        )
    if model.mixes and chosen["accum_steps"] > 1:
        notes.append("the loss ties samples together: cutting its batch changes it")
    if model.traced == "concrete":
        notes.append("the model was measured on a small real batch: its step cannot be traced")
    micro, accum = chosen["micro_batch"], chosen["accum_steps"]
    high = sizing.device_peak(micro, accum).high
    if high > sizing.get("memory.budget_bytes"):
        notes.append(
            f"micro_batch {micro} may need {bytes_text(high)}, more than the budget of "
            f"{bytes_text(sizing.get('memory.budget_bytes'))}"
        )
    return notes
