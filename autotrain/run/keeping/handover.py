"""Weights that a run begins with: of another run's checkpoint, taken over by name and shape."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.keeper import pointed
from autotrain.run.keeping.tensors import tensors_of

_KINDS = ("taken over", "new", "new, of another shape", "left behind")


class Taken(NamedTuple):
    """Where weights came from, and what of the model they are, as a person reads it."""

    path: Path
    told: str


def source(directory: Path, which: str) -> Path:
    """The verified checkpoint of a run that its `best` or `latest` weights are in.

    A run that was never evaluated has no best one: its latest is meant. Raises AutotrainError.
    """
    best = pointed(directory).get("best") if which == "best" else None
    if best is not None:
        path = checkpoint.folder(directory, best)
        checkpoint.verify(path)
        return path
    newest, torn = checkpoint.newest_good(directory)
    if newest is None:
        why = f": {torn[0].message}" if torn else ""
        raise AutotrainError(f"{directory}: no checkpoint to take weights from{why}")
    return newest


def weights_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's weights, as its manifest says; empty where that is not known."""
    manifest = files.read_json(path / checkpoint.MANIFEST)
    listed = manifest.get("files", {}) if isinstance(manifest, dict) else {}
    names = ("model.safetensors", checkpoint.AVERAGE)
    parts = [listed[name].get("sha256", "") for name in names if name in listed]
    return hashlib.sha256("".join(parts).encode()).hexdigest() if parts else ""


def begin(
    model: torch.nn.Module, directory: Path, weights: Path | None, *, resume: bool
) -> Taken | None:
    """Give a model the weights that its run begins with; None where it goes on with its own."""
    if weights is None or (resume and checkpoint.newest_good(directory)[0] is not None):
        return None
    return take_over(model, weights)


def take_over(model: torch.nn.Module, path: Path) -> Taken:
    """Copy into `model` every tensor of a checkpoint that has its name and shape there.

    Of a run that averages its weights, the averaged ones. Raises AutotrainError where nothing
    fits, and TornError where the checkpoint is not whole.
    """
    checkpoint.verify(path)
    snapshot = checkpoint.load(path, 10 * tensors_of(model))
    flat = snapshot.average or snapshot.model
    theirs = {**flat.tensors, **{name: flat.tensors[one] for name, one in flat.aliases.items()}}
    mine = model.state_dict()
    mine = {name: value for name, value in mine.items() if isinstance(value, torch.Tensor)}
    kinds = {name: _kind(value, theirs.get(name)) for name, value in mine.items()}
    if "taken over" not in kinds.values():
        raise AutotrainError(
            f"{path}: nothing of it fits the model: {_told(kinds, theirs)}",
            "tensors are taken over by name and shape: name the parts alike in both models, "
            'or say weights = "none" for the stage',
        )
    with torch.no_grad():
        for name, kind in kinds.items():
            if kind == "taken over":
                mine[name].copy_(theirs[name])
    return Taken(path, _told(kinds, theirs))


def _kind(mine: torch.Tensor, theirs: torch.Tensor | None) -> str:
    if theirs is None:
        return "new"
    alike = mine.shape == theirs.shape
    same_kind = mine.is_floating_point() == theirs.is_floating_point()
    return "taken over" if alike and same_kind else "new, of another shape"


def _told(kinds: Mapping[str, str], theirs: Mapping[str, Any]) -> str:
    """`encoder.*: 34 tensors taken over; decoder.*: 12 new`, by the model's outermost parts."""
    counts: dict[str, dict[str, int]] = {}
    left = {name: "left behind" for name in theirs if name not in kinds}
    for name, kind in {**kinds, **left}.items():
        part, dot, _ = name.partition(".")
        held = counts.setdefault(part + (".*" if dot else ""), {})
        held[kind] = held.get(kind, 0) + 1
    lines, said = [], False
    for part, held in counts.items():
        texts = []
        for kind in (kind for kind in _KINDS if kind in held):
            noun = "" if said else " tensor" + ("" if held[kind] == 1 else "s")
            texts.append(f"{held[kind]:,}{noun} {kind}")
            said = True
        lines.append(f"{part}: {', '.join(texts)}")
    return "; ".join(lines)
