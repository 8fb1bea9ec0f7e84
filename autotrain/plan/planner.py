"""Profiles and a goal in, a plan out: every setting decided in order, each with its reason.

Pure arithmetic: no torch, no I/O, milliseconds. The order matters, because later settings
are computed from the values in force of earlier ones.
"""

from __future__ import annotations

import hashlib
import json

from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.plan import batch, buckets, choices, cutting, execution, outlook, pace, remedies
from autotrain.plan.ledger import Ledger
from autotrain.plan.notes import notes
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

    Raises DoesNotFitError where not even one sample fits, or the disk cannot hold a run;
    UsageError where what the user set does not go together.
    """
    sizing = _sized_or_hint(hardware, model, goal)
    ledger = sizing.ledger
    pace.decide(ledger, sizing)
    outlook.loader(ledger, sizing)
    outlook.predictions(ledger, sizing)
    _room_on_disk(hardware, sizing)
    inputs = InputsSection(
        hardware=machine_digest(hardware),
        dataset=dataset.fingerprint,
        model=model_digest(model),
    )
    return Plan.model_validate(
        {
            "made_by": f"autotrain {version}",
            "recipe": goal.recipes[-1].name if goal.recipes else "rules",
            **ledger.values,
            "inputs": inputs,
            "notes": notes(dataset, model, sizing),
            "because": ledger.because,
        }
    )


def dtype_in_force(hardware: HardwareProfile, goal: Goal) -> Dtype:
    """The precision whose traces a plan needs: its own; tf32 allocates as fp32 does."""
    device = choices.choose_device(hardware, goal)
    dtype: Dtype = choices.precision(Ledger(goal, 0, device.kind), device)
    return "fp32" if dtype == "tf32" else dtype


def size_in_question(hardware: HardwareProfile, model: ModelProfile, goal: Goal) -> int:
    """The micro_batch of a plan for which memory is no limit: a first trace may as well be it."""
    device = choices.choose_device(hardware, goal)
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    rule = min(batch.default_global_batch(model.train_count), model.train_count)
    micro: int | None = ledger.fixed("batch.micro_batch")
    return micro or ledger.given_batch() or rule


def lengths_in_question(
    hardware: HardwareProfile, model: ModelProfile, goal: Goal
) -> tuple[float, ...]:
    """The lengths below the longest at which a plan with buckets needs traces; often none."""
    device = choices.choose_device(hardware, goal)
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    return buckets.lengths_to_trace(ledger, model, on_cpu=device.kind == "cpu")


def machine_digest(hardware: HardwareProfile) -> str:
    """SHA-256 of what stays the same while a machine is in use.

    System, CPU and cores, RAM, and every device's kind, name and memory; not what is free,
    what was calibrated, or which versions are installed.
    """
    devices = [[d.kind, d.index, d.name, d.total_bytes] for d in hardware.devices]
    cpu = hardware.cpu
    stable = [hardware.system, cpu.name, cpu.cores, hardware.ram_total_bytes, devices]
    return _sha256(stable)


def model_digest(model: ModelProfile) -> str:
    """SHA-256 of the model's own sizes; not of traces, trials, lengths, or loading's speed."""
    passing = {
        "traces",
        "traced",
        "loaded_bytes",
        "trials",
        "lengths",
        "sample_seconds",
        "sample_bytes",
    }
    sizes = model.model_dump(exclude=passing)
    return _sha256(sizes)


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sized_or_hint(hardware: HardwareProfile, model: ModelProfile, goal: Goal) -> Sizing:
    """The batch decided; or DoesNotFitError with what would make it fit."""
    device = choices.choose_device(hardware, goal)

    def fits(goal: Goal, device: Device) -> bool:
        try:
            _sized(hardware, device, model, goal)
        except AutotrainError:
            return False
        return True

    try:
        return _sized(hardware, device, model, goal)
    except DoesNotFitError as error:
        hint = remedies.hint(goal, device, model, fits)
        raise DoesNotFitError(error.message, hint) from None


def _sized(hardware: HardwareProfile, device: Device, model: ModelProfile, goal: Goal) -> Sizing:
    """All that the batch depends on, and the batch."""
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    choices.identity(ledger, goal)
    choices.machine(ledger, hardware, device)
    train_count, valid_count = choices.data(ledger, model)
    choices.optimizer(ledger, device)
    execution.decide(ledger)
    dtype = choices.precision(ledger, device)
    assert model.at(dtype), f"the model was not traced in {dtype}"
    sizing = Sizing(ledger, hardware, device, model, train_count, valid_count)
    cutting.decide(ledger, sizing)
    return sizing


def _room_on_disk(hardware: HardwareProfile, sizing: Sizing) -> None:
    size, free = sizing.checkpoint_bytes().high, hardware.disk.free_bytes
    need = 2 * size
    if free < need:
        raise DoesNotFitError(
            f"{hardware.disk.path}: {bytes_text(free)} free, two checkpoints need "
            f"{bytes_text(need)}",
            "free space, or plan from a folder on a larger disk",
        )
