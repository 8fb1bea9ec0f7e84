"""What two snapshots of the same step have in common, part by part: is a resume exact?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.run.keeping.tensors import Flat

# Of a snapshot's state, what each part is made of.
PARTS = {
    "place in the data": ("step", "samples", "weight", "epoch", "window", "evaluated"),
    "learning rate": ("schedule",),
    "loss scale": ("scaler",),
    "random numbers": ("draws",),
    "early stopping": ("best", "best_step", "reference", "bad_evaluations"),
    "figures under way": ("meter", "history"),
    "healing": (
        "guard", "bad_samples", "bad_streak", "rollbacks", "went_back_at", "went_back_to",
        "broken_evaluations", "sound_evaluation",
    ),
}  # fmt: skip
# What a clock or the system says differs between any two runs.
TIMED = frozenset({
    "seconds", "waited", "untimed", "rates", "waits", "peak_bytes", "celsius", "others", "slowed",
    "told",
})  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of a snapshot beside the same of another. `distance`: the largest difference of two
    numbers, in parts of the largest number of their tensor; None where they are no numbers.
    """

    name: str
    same: bool
    said: str
    distance: float | None = None


def compared(one: Snapshot, other: Snapshot) -> list[Part]:
    """Part by part. Tensors count as the same only to the bit, and NaN is NaN."""
    found = [_tensors("weights", one.model, other.model)]
    found.append(_tensors("optimizer", one.optimizer, other.optimizer))
    if one.average is not None and other.average is not None:
        found.append(_tensors("averaged weights", one.average, other.average))
    for name, keys in PARTS.items():
        mine, theirs = ({k: _untimed(of.state.get(k)) for k in keys} for of in (one, other))
        apart = [key for key in keys if mine[key] != theirs[key]]
        said = "; ".join(f"{key}: {_short(mine[key])}, {_short(theirs[key])}" for key in apart)
        found.append(Part(name, not apart, said or "the same"))
    return found


def _tensors(name: str, one: Flat, other: Flat) -> Part:
    if one.tensors.keys() != other.tensors.keys() or one.rest != other.rest:
        return Part(name, same=False, said="not the same tensors")
    pairs = [(key, one.tensors[key], other.tensors[key]) for key in one.tensors]
    apart = {key: _distance(a, b) for key, a, b in pairs if not _equal(a, b)}
    if not apart:
        return Part(name, same=True, said=f"the same to the bit in {len(pairs)} tensors")
    worst = max(apart, key=apart.__getitem__)
    said = f"{len(apart)} of {len(pairs)} tensors differ, {worst} most: by {apart[worst]:.1e}"
    return Part(name, same=False, said=f"{said} of its largest number", distance=apart[worst])


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    as_bytes = (t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(*as_bytes)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    a, b = one.double(), other.double()
    largest = float(torch.maximum(a.abs().max(), b.abs().max()))
    return float((a - b).abs().max()) / (largest or 1.0)


def _untimed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _untimed(own) for key, own in value.items() if key not in TIMED}
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
