"""What happens in a run, as data: the loop yields these, consumers show and store them.

One JSON line each in `events.jsonl`. `time` is seconds since the epoch.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

StopReason = Literal[
    "finished", "early_stop", "max_steps", "interrupted", "terminated", "not_finite",
    "out_of_memory", "error",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stamped:
    step: int
    epoch: int
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True, slots=True)
class Started(_Stamped):
    """The loop is about to take its first step. `resumed_from` names a checkpoint or None.

    `weights_from`: the checkpoint of another run, or the file, whose weights this one begins
    with, and `weights_taken` what of it fits; `weights_sha256` is the file's. `stage`: of a plan
    with stages, the one that this is.
    """

    name: ClassVar = "started"
    total_steps: int
    epochs: int
    steps_per_epoch: int
    device: str
    monitor: str
    better: str
    train_count: int
    valid_count: int
    resumed_from: str | None = None
    parameters: int | None = None
    weights_from: str | None = None
    weights_taken: str | None = None
    weights_sha256: str | None = None
    stage: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(_Stamped):
    """A log point: means over the steps since the last one, bytes now and at the peak.

    `loss` and `parts` are per weight; `weight` and `samples` are sums since the last point;
    `step_seconds` and `wait_seconds` are means per step. What no system tells is None:
    `gpu_utilisation` is the share of the last moments in which the GPU computed anything,
    `gpu_slowed` why it holds its clock down, `others_cpu` the share of the cores' time that
    other programs took.
    """

    name: ClassVar = "step"
    loss: float
    parts: dict[str, float]
    lr: float
    grad_norm: float
    samples: int
    weight: float
    step_seconds: float
    wait_seconds: float
    device_bytes: int
    peak_bytes: int
    gpu_utilisation: float | None = None
    gpu_celsius: float | None = None
    gpu_watts: float | None = None
    gpu_slowed: str | None = None
    others_cpu: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated(_Stamped):
    """Sums over the validation set, divided once. `best`: the monitored figure improved."""

    name: ClassVar = "evaluated"
    loss: float
    metrics: dict[str, float]
    best: bool
    bad_evaluations: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved(_Stamped):
    """A checkpoint is on disk, verified. `label` is why: step, epoch, best, interrupted, ...

    It took `seconds`, of which training was held up for `held_seconds`.
    """

    name: ClassVar = "saved"
    path: str
    label: str
    bytes: int
    seconds: float
    held_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Healed(_Stamped):
    """A fault was mended; training goes on. `cost_seconds` is what it took.

    `amends`: what changed in the plan for it: key -> [before, after].
    """

    name: ClassVar = "healed"
    fault: str
    cure: str
    cost_seconds: float
    amends: dict[str, list[int | str | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned(_Stamped):
    """Something a person should know; training goes on."""

    name: ClassVar = "warned"
    message: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped(_Stamped):
    """The last event of a run. `checkpoint` is the newest good one, if any.

    `tensor_peak_bytes`: the most of tensors alive at once, where an allocator counts them (CUDA).
    `peak_bytes`: as a Step's, with the saves after the last of them.
    """

    name: ClassVar = "stopped"
    reason: StopReason
    detail: str
    best: float | None
    best_step: int | None
    seconds: float
    checkpoint: str | None
    tensor_peak_bytes: int | None = None
    peak_bytes: int | None = None


Event = Started | Step | Evaluated | Saved | Healed | Warned | Stopped
_BY_NAME: dict[str, type] = {
    kind.name: kind for kind in (Started, Step, Evaluated, Saved, Healed, Warned, Stopped)
}
_NAMES = ("nan", "inf", "-inf")


def _finite(value: Any) -> Any:
    """JSON has no NaN: a float that is not finite becomes its name as a string."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


def to_json(event: Event) -> str:
    """One line, no newline; `event` first. NaN and infinity are the strings nan, inf, -inf."""
    return json.dumps({"event": event.name, **_finite(asdict(event))}, allow_nan=False)


def _floats(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_finite`: the fields that hold floats get their NaN and infinity back."""
    for item in fields(kind):
        value = data.get(item.name)
        if "float" not in str(item.type):
            continue
        if isinstance(value, dict):
            data[item.name] = {k: float(v) if v in _NAMES else v for k, v in value.items()}
        elif value in _NAMES:
            data[item.name] = float(value)
    return data


def from_json(line: str) -> Event:
    """The inverse of `to_json`. Raises ValueError on anything else."""
    data = json.loads(line)
    name = data.pop("event", None) if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ValueError(f"not an event: {line[:80]!r}")
    kind = _BY_NAME[name]
    try:
        event: Event = kind(**_floats(kind, data))
    except TypeError as error:
        raise ValueError(f"not an event: {error}") from None
    return event
