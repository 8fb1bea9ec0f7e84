"""Settings that follow from the machine and the task alone: device, memory, data, precision."""

from __future__ import annotations

from collections.abc import Iterator

from autotrain.errors import AutotrainError, UsageError
from autotrain.heldout import held_out
from autotrain.plan.ledger import Ledger
from autotrain.schema import (
    VALID_SHARE,
    Beside,
    Device,
    Dtype,
    Goal,
    HardwareProfile,
    Kind,
    ModelProfile,
)
from autotrain.units import bytes_text


def choose_device(hardware: HardwareProfile, goal: Goal) -> Device:
    """The device that the user names, else the first GPU, else the CPU.

    Raises AutotrainError where the machine has no such device.
    """
    first = hardware.devices[0]
    kind = goal.user.get("device.kind", first.kind)
    index = goal.user.get("device.index", first.index if kind == first.kind else 0)
    device = hardware.device(kind, index)
    if device is None:
        there = ", ".join(f"{d.kind}:{d.index}" for d in hardware.devices)
        raise AutotrainError(f"{hardware.name} has no device {kind}:{index}", f"it has {there}")
    return device


def identity(ledger: Ledger, goal: Goal) -> None:
    """Which code, which data, where the run goes, which seed."""
    task = goal.task
    for key, value in (("template", task.template), ("file", task.file), ("data", task.data)):
        ledger.settle(
            f"task.{key}",
            value,
            formula="named on the command line, or found by what the data looks like"
            if value is not None
            else "none was named: a task is either a template or a file, and may need no data",
            source="the command line",
            kind="fixed" if value is None else "user",
            would_change="planning again with other DATA, --template or --task",
        )
    ledger.settle(
        "task.sha256",
        task.sha256,
        formula="SHA-256 of the task file when this plan was made",
        source="the file",
        kind="measured",
        limited_by="the code",
        would_change="a change of the code; `run` then stops until you plan again",
    )
    ledger.settle(
        "task.options",
        task.options,
        formula="passed to task() as keyword arguments",
        source="you, or the recipe",
        kind="user" if task.options else "fixed",
        would_change="--set task.NAME=VALUE",
        beside=tuple(_left_out(goal)),
    )
    rule = "autotrain's rule"
    name = ledger.settle(
        "run.name", goal.name, formula="the plan file's, or the task's", source=rule
    )
    ledger.settle(
        "run.directory",
        f"runs/{name}",
        formula="runs/<run.name>, beside the plan file",
        source=rule,
    )
    ledger.settle(
        "run.seed",
        0,
        formula="any number: equal seeds give equal runs on the same machine",
        source=rule,
        kind="fixed",
    )


def _left_out(goal: Goal) -> Iterator[Beside]:
    """What a recipe has for a task, and this one does not take."""
    if goal.left_out:
        name, why = f"the recipe {goal.recipes[-1].name}", "this task takes no such option"
        yield Beside(name=name, value=goal.left_out, formula="for tasks that take it", why_not=why)


def machine(ledger: Ledger, hardware: HardwareProfile, device: Device) -> None:
    """The device, its threads, and the share of its memory that the plan may use."""
    source, kind = told_by(hardware)
    ledger.settle(
        "device.kind",
        device.kind,
        formula=f"{device.name}, the first device of {hardware.name}",
        source=source,
        kind=kind,
    )
    ledger.settle(
        "device.index", device.index, formula="as the driver numbers it", source=source, kind=kind
    )
    cores = hardware.cpu.cores
    may_use = "a process may use (affinity and cgroup quota)" if hardware.probed else "it has"
    ledger.settle(
        "device.threads",
        cores,
        formula=f"{cores} cores {may_use}",
        source=source,
        kind=kind,
        limited_by="cpu.cores",
    )
    share = ledger.settle(
        "memory.share",
        0.8 if device.kind in ("cpu", "mps") else 0.9,
        formula="0.8 of RAM, which others need too; 0.9 of a GPU's memory",
        source="autotrain's rule",
    )
    tightest = min(used(ledger, hardware, device), key=lambda each: each.free_bytes)
    free, which = tightest.free_bytes, tightest.name
    if tightest is not device:
        which += f" ({tightest.kind}:{tightest.index}), the least of those that train"
    ledger.settle(
        "memory.budget_bytes",
        max(int(share * free), 1),
        formula=f"memory.share {share:g} x {bytes_text(free)} free on {which}",
        source=source,
        kind=kind,
        limited_by="memory that other programs hold",
        would_change="closing other programs, or --set memory.share=0.95",
    )


def reach(hardware: HardwareProfile, device: Device) -> list[Device]:
    """What processes on this machine could train on, one each: `device`, and GPUs behind it."""
    if device.kind in ("cpu", "mps"):
        return [device]
    found = (each for each in hardware.devices if each.kind == device.kind)
    behind = (each for each in found if each.index > device.index)
    return [device, *sorted(behind, key=lambda each: each.index)]


def used(ledger: Ledger, hardware: HardwareProfile, device: Device) -> list[Device]:
    """Those of them that the run trains on."""
    return reach(hardware, device)[: int(ledger.fixed("batch.world_size") or 1)]


def told_by(hardware: HardwareProfile) -> tuple[str, Kind]:
    """Where what is said of a machine comes from: a look at it, or its datasheet."""
    if hardware.probed:
        return f"autotrain probe of {hardware.name}", "measured"
    return f"the profile {hardware.name}: its datasheet, or whoever wrote it", "fixed"


def data(ledger: Ledger, model: ModelProfile) -> tuple[int, int]:
    """Training and validation samples in force: (train, valid).

    Raises AutotrainError or UsageError where none could be validated on.
    """
    total = model.train_count
    if model.valid_count:
        ledger.settle(
            "data.valid_share",
            None,
            formula=f"the task brings {model.valid_count} validation samples of its own",
            source="the task",
            kind="fixed",
            would_change="valid=None in the task, then a share is held out",
        )
        return total, model.valid_count
    if ledger.by_user("data.valid_share") and ledger.fixed("data.valid_share") is None:
        raise UsageError(
            "data.valid_share: off, and the task brings no validation samples of its own",
            hint="--set data.valid_share=0.05, or valid=... in the task",
        )
    if total < 2:
        raise AutotrainError(
            f"{total} sample cannot be split into training and validation",
            "add samples, or give the task a `valid` dataset",
        )
    share = ledger.settle(
        "data.valid_share",
        VALID_SHARE,
        formula=f"a tenth of {total} training samples is held out, as run.seed picks them",
        source="autotrain's rule",
    )
    held = held_out(total, share)
    return total - held, held


def precision(ledger: Ledger, device: Device) -> Dtype:
    """The number format of the forward pass; weights stay in fp32."""
    native = device.native_dtypes
    if device.kind in {"cpu", "mps"}:
        rule: Dtype = "fp32"
        why = "bf16 speeds some models up on a CPU and slows others down: fp32 until measured"
    elif "bf16" in native:
        rule, why = "bf16", "the device computes bf16 natively, and it needs no loss scaling"
    elif "fp16" in native:
        rule, why = "fp16", "the device has no bf16; fp16 with loss scaling"
    else:
        rule, why = "fp32", "the device has no faster format"
    dtype: Dtype = ledger.settle(
        "precision.dtype",
        rule,
        formula=f"{why}; native to it: {', '.join(native)}",
        source="Micikevicius 2018, arXiv:1710.03740",
        limited_by="what the device computes fast",
        would_change="--set precision.dtype=fp32|tf32|bf16|fp16",
    )
    return dtype
