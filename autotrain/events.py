"""What happens in a run, as data: the loop yields these, consumers show and store them.

One JSON line each in `events.jsonl`. `time` is seconds since the epoch.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from autotrain import parsing

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
    with stages, the one that this is. `process`: the process that trains, see `presence`.
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
    process: str | None = None


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
    `peak_bytes`: as a Step's, with the saves after the last of them. `device_peak_bytes`: on a GPU,
    with what the driver lent beside the allocator.
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
    device_peak_bytes: int | None = None


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


def _names(value: Any) -> bool:
    return isinstance(value, str) and value in _NAMES


def _floats(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_finite`: the fields that hold floats get their NaN and infinity back."""
    for name in _float_names(kind):
        value = data.get(name)
        if isinstance(value, dict):
            data[name] = {k: float(str(v)) if _names(v) else v for k, v in value.items()}
        elif _names(value):
            data[name] = float(str(value))
    return data


@cache
def _float_names(kind: type) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind) if "float" in str(item.type))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a file is what a field holds; a whole number is a float too."""
    of = get_args(hint)
    match get_origin(hint):
        case None if hint is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case None:
            return type(value) is hint
        case kind if kind is dict:
            return isinstance(value, dict) and all(_fits(each, of[1]) for each in value.values())
        case kind if kind is list:
            return isinstance(value, list) and all(_fits(each, of[0]) for each in value)
        case kind if kind is Literal:
            return value in of
    return any(_fits(value, each) for each in of)


@cache
def _hints(kind: type) -> dict[str, tuple[Any, frozenset[type]]]:
    """Of each field its type, and the types of values that are so at a glance."""
    glances: dict[Any, set[type]] = {
        float: {int, float},
        float | None: {int, float, type(None)},
    }
    hints = get_type_hints(kind)
    return {key: (hint, frozenset(glances.get(hint, {hint}))) for key, hint in hints.items()}


def from_json(line: str) -> Event:
    """The inverse of `to_json`. Raises ValueError on anything else, whoever wrote it."""
    data = parsing.from_json(line.encode(errors="replace"))
    name = data.pop("event", None) if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ValueError(f"not an event: {line[:80]!r}")
    kind = _BY_NAME[name]
    try:
        event: Event = kind(**_floats(kind, data))
    except TypeError as error:
        raise ValueError(f"not an event: {error}") from None
    hints = _hints(kind)
    for key, value in data.items():
        hint, glances = hints[key]
        if type(value) not in glances and not _fits(value, hint):
            raise ValueError(f"not an event: {key}: {str(value)[:80]}")
    return event
