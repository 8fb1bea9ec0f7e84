"""What a plan was made from beside what is there now: which of it differs, in words."""

from __future__ import annotations

from typing import Any, NamedTuple

from autotrain.schema import (
    DatasetProfile,
    Device,
    HardwareProfile,
    InputsSection,
    ModelProfile,
    Plan,
)
from autotrain.units import bytes_text, count_text

# Sizes that differ by less are the same: firmware and kernels keep a little for themselves.
SAME_BYTES = 0.02
# Of the versions, those that decide how much memory and time a step takes.
TOLD = ("torch", "torchvision", "torchaudio", "cuda", "rocm", "cudnn", "driver", "python")
_DATA = "epochs are longer or shorter than planned, and so is the run"
_CONTENT = "lengths and loading times may be others"
_MACHINE = "time and memory were predicted for the other one"
_MODEL = "memory and time were predicted for the other one"
_VERSIONS = "what was measured with the other one may not hold"


class Change(NamedTuple):
    """One thing that differs: `what` it is, as it was `then` and is `now`, and what that means."""

    what: str
    then: str
    now: str
    means: str = ""

    def __str__(self) -> str:
        means = f": {self.means}" if self.means else ""
        return f"{self.what}: {self.then} when planned, {self.now} now{means}"


def inputs_of(
    hardware: HardwareProfile, device: Device, dataset: DatasetProfile | None, model: ModelProfile
) -> dict[str, Any]:
    """The fields of InputsSection that a person can compare, digests left out."""
    return {
        **machine_inputs(hardware, device),
        "train_samples": model.train_count,
        "valid_samples": model.valid_count,
        "data_bytes": dataset.bytes if dataset is not None and dataset.bytes else None,
        "parameters": model.parameters,
    }


def machine_inputs(hardware: HardwareProfile, device: Device | None) -> dict[str, Any]:
    """Those of the machine; `device` is the one that trains, None where it is not there."""
    return {
        "device": device.name if device is not None else "",
        "device_bytes": device.total_bytes if device is not None else None,
        "ram_bytes": hardware.ram_total_bytes,
        "cpu": hardware.cpu.name,
        "cores": hardware.cpu.cores,
        "system": hardware.system,
        "versions": dict(hardware.versions),
    }


def changes(then: InputsSection, now: InputsSection) -> list[Change]:
    """What differs of that which is known of both; an empty digest is not known."""
    return [*_data(then, now), *_model(then, now), *_machine(then, now), *_versions(then, now)]


def resumed_with_other_data(then: InputsSection, now: InputsSection) -> str | None:
    """What a run that goes on says of samples whose content is other than it was.

    `then` is of its plan so far: whether it ran with those nobody wrote down.
    """
    found = [each for each in _data(then, now) if each.what == "data"]
    if not found:
        return None
    return (
        f"data: {found[0].then} in the run's plan so far, {found[0].now} now: if it ran with the "
        "former, it is not to the bit what it would have been"
    )


def _data(then: InputsSection, now: InputsSection) -> list[Change]:
    found = []
    for what, name in (("to train on", "train_samples"), ("to validate on", "valid_samples")):
        before, after = getattr(then, name), getattr(now, name)
        if _differ(before, after):
            texts = (f"{before:,} samples {what}", f"{after:,}")
            found.append(Change("data", *texts, _DATA if name == "train_samples" else ""))
    if found or not (then.dataset and now.dataset) or then.dataset == now.dataset:
        return found
    if _differ(then.data_bytes, now.data_bytes):
        sizes = (_exact(then.data_bytes or 0), _exact(now.data_bytes or 0))
        return [Change("data", *_apart(*sizes), _CONTENT)]
    return [Change("data", "other content in as many samples", f"{now.dataset[:12]}...", _CONTENT)]


def _model(then: InputsSection, now: InputsSection) -> list[Change]:
    before, after = then.parameters, now.parameters
    if before is None or after is None or before == after:
        return []
    texts = _apart((f"{count_text(before)}", f"{before:,}"), (f"{count_text(after)}", f"{after:,}"))
    return [Change("model", f"{texts[0]} parameters", texts[1], _MODEL)]


def _machine(then: InputsSection, now: InputsSection) -> list[Change]:
    found = []
    if then.device and now.device and then.device != now.device:
        found.append(Change("device", _named(then), _named(now), _MACHINE))
    elif _other_size(then.device_bytes, now.device_bytes) and then.device != then.cpu:
        sizes = (bytes_text(then.device_bytes or 0), bytes_text(now.device_bytes or 0))
        found.append(Change(f"memory of {then.device}", *sizes, _MACHINE))
    if then.cpu and now.cpu and then.cpu not in (now.cpu, then.device):
        found.append(Change("processor", then.cpu, now.cpu))
    if _differ(then.cores, now.cores):
        found.append(Change("cores", f"{then.cores}", f"{now.cores}", _MACHINE))
    if _other_size(then.ram_bytes, now.ram_bytes):
        sizes = (bytes_text(then.ram_bytes or 0), bytes_text(now.ram_bytes or 0))
        found.append(Change("RAM", *sizes, "memory.budget_bytes was chosen for the other size"))
    if then.system and now.system and then.system != now.system:
        found.append(Change("system", then.system, now.system))
    return found


def _versions(then: InputsSection, now: InputsSection) -> list[Change]:
    both = [name for name in TOLD if then.versions.get(name) and now.versions.get(name)]
    found = []
    for name in both:
        before, after = then.versions[name], now.versions[name]
        if name == "python":  # 3.11.9 and 3.11.10 train alike
            before, after = (".".join(text.split(".")[:2]) for text in (before, after))
        if before != after:
            found.append(Change(name, before, after, _VERSIONS))
    return found


def memory_change(plan: Plan, device: Device) -> Change | None:
    """Where the device has less free than the plan may use: whether the run is to fit all the same.

    Nothing where what the plan is predicted to take at most is free.
    """
    budget, free = plan.memory.budget_bytes, device.free_bytes
    need = plan.predicted.device_peak_bytes
    if free >= min(budget, need.high):
        return None
    if free < need.low:
        means = f"the run is to take {bytes_text(need.low)} or more, and will hardly fit"
    else:
        span = f"{bytes_text(need.low)} to {bytes_text(need.high)}"
        means = f"the run is to take {span}, and may not fit while other programs hold the rest"
    what = f"free memory of {device.name}"
    return Change(what, f"{bytes_text(budget)} to use", bytes_text(free), means)


def _named(inputs: InputsSection) -> str:
    return f"{inputs.device} ({bytes_text(inputs.device_bytes or 0)})"


def _differ(before: object, after: object) -> bool:
    return before is not None and after is not None and before != after


def _other_size(before: int | None, after: int | None) -> bool:
    if not before or not after:
        return False
    return abs(before - after) > SAME_BYTES * before


def _exact(size: int) -> tuple[str, str]:
    return bytes_text(size), f"{size:,} bytes"


def _apart(before: tuple[str, str], after: tuple[str, str]) -> tuple[str, str]:
    """The short forms, or the long ones where the short ones read the same."""
    return (before[0], after[0]) if before[0] != after[0] else (before[1], after[1])
