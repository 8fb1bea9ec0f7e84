"""What would make a model fit, each remedy tried by planning again before it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotrain.schema import AUTO, Device, Dtype, Goal, ModelProfile
from autotrain.units import bytes_text

Change = dict[str, Any]
Fits = Callable[[Goal, Device], bool]

# Settings of the user's own that can stand in the way of a fit.
_IN_THE_WAY = (
    "memory.budget_bytes",
    "memory.share",
    "batch.micro_batch",
    "batch.accum_steps",
    "batch.global_batch",
    "batch.world_size",
    "parallel.strategy",
    "parallel.reduce",
    "optimizer.name",
    "optimizer.implementation",
    "precision.dtype",
    "model.activation_checkpointing",
    "loader.workers",
    "loader.keep",
)
_SPELLED: dict[Any, str] = {None: "off", AUTO: "auto"}
_LIGHT: Change = {"optimizer.name": "sgd", "optimizer.momentum": None}


def hint(goal: Goal, device: Device, model: ModelProfile, fits: Fits) -> str:
    """Remedies that `fits` confirms, the mildest of each sort, and one that is always left."""
    found: list[str] = []
    for changes in (*_own(goal), *_milder(model)):
        good = (c for c in changes if fits(changed(goal, c), device))
        found += [spelled(change) for change in good][:1]
    together = {"memory.share": 0.95, **_LIGHT}
    if not found and fits(changed(goal, together), device):
        found.append(spelled(together))
    free = _free_bytes(goal, device, fits)
    if free is not None:
        found.append(f"a device with {bytes_text(free)} free")
    return "what would make it fit: " + ", or ".join([*found, "a smaller model or input"])


def _own(goal: Goal) -> list[list[Change]]:
    return [[{key: AUTO}] for key in _IN_THE_WAY if key in goal.user]


def _milder(model: ModelProfile) -> list[list[Change]]:
    return [
        [{"memory.share": 0.95}],
        [{"optimizer.name": "sgd"}, _LIGHT],
        [{"precision.dtype": dtype} for dtype in halves(model)],
        [{"batch.global_batch": 2**power} for power in range(10, -1, -1)],
        [{"loader.workers": 0}],
    ]


def changed(goal: Goal, change: Change) -> Goal:
    """The goal with these settings; AUTO leaves one out."""
    user = {key: value for key, value in (goal.user | change).items() if value is not AUTO}
    return goal.model_copy(update={"user": user})


def halves(model: ModelProfile) -> list[Dtype]:
    """Half precisions in which the model was traced."""
    known: tuple[Dtype, ...] = ("bf16", "fp16")
    return [dtype for dtype in known if any(t.dtype == dtype for t in model.traces)]


def spelled(change: Change) -> str:
    """A change as a person makes it."""
    return " ".join(f"--set {key}={_SPELLED.get(v, v)}" for key, v in change.items())


def _free_bytes(goal: Goal, device: Device, fits: Fits) -> float | None:
    """The free bytes, to 1 %, from which on it fits; None where no amount helps."""

    def enough(free: float) -> bool:
        more = {"free_bytes": int(free), "total_bytes": max(int(free), device.total_bytes)}
        return fits(goal, device.model_copy(update=more))

    high = max(float(device.free_bytes), 1e9)
    while not enough(high):
        high *= 2
        if high > 1e15:
            return None
    low = high / 2
    while high > 1.005 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return 1.005 * high
