"""Weights that a run begins with, taken over by name and shape: of another run, or imported."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.foreign import fitting
from autotrain.foreign.weights import Foreign
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.keeper import pointed
from autotrain.run.keeping.tensors import tensors_of


class Taken(NamedTuple):
    """Where weights came from, and what of the model they are, as a person reads it.

    `sha256`: of the file, where it was somebody else's.
    """

    path: Path
    told: str
    sha256: str | None = None


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
    names = (checkpoint.MODEL, checkpoint.AVERAGE)
    parts = [said for name in names if (said := file_sha256(path, name))]
    return hashlib.sha256("".join(parts).encode()).hexdigest() if parts else ""


def file_sha256(path: Path, name: str) -> str:
    """Of one of a checkpoint's files, as its manifest says; empty where that is not known."""
    manifest = files.read_json(path / checkpoint.MANIFEST)
    listed = manifest.get("files", {}) if isinstance(manifest, dict) else {}
    return str(listed.get(name, {}).get("sha256", ""))


def begin(
    model: torch.nn.Module, directory: Path, weights: Path | Foreign | None, *, resume: bool
) -> Taken | None:
    """Give a model the weights that its run begins with; None where it goes on with its own."""
    if weights is None or (resume and checkpoint.newest_good(directory)[0] is not None):
        return None
    return _import(model, weights) if isinstance(weights, Foreign) else take_over(model, weights)


def take_over(model: torch.nn.Module, path: Path) -> Taken:
    """Copy into `model` every tensor of a checkpoint that has its name and shape there.

    Of a run that averages its weights, the averaged ones. Raises AutotrainError where nothing
    fits, and TornError where the checkpoint is not whole.
    """
    checkpoint.verify(path)
    snapshot = checkpoint.load(path, 10 * tensors_of(model))
    flat = snapshot.average or snapshot.model
    theirs = {**flat.tensors, **{name: flat.tensors[one] for name, one in flat.aliases.items()}}
    mine = fitting.own_tensors(model)
    kinds = fitting.kinds(mine, theirs)
    if fitting.TAKEN not in kinds.values():
        raise AutotrainError(
            f"{path}: nothing of it fits the model: {fitting.told(kinds, theirs)}",
            "tensors are taken over by name and shape: name the parts alike in both models, "
            'or say weights = "none" for the stage',
        )
    fitting.copy_into(mine, theirs, kinds)
    return Taken(path, fitting.told(kinds, theirs))


def _import(model: torch.nn.Module, given: Foreign) -> Taken:
    """Take over what fits of somebody else's file, which then holds nothing any more.

    Raises AutotrainError where that is less than half of the model.
    """
    mine = fitting.own_tensors(model)
    theirs = fitting.named_as(mine, given.tensors)
    given.tensors.clear()  # it is there as long as the run
    kinds = fitting.kinds(mine, theirs)
    fitting.insist_on_half(given.path, kinds, theirs)
    fitting.copy_into(mine, theirs, kinds)
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise AutotrainError(
                f"{given.path}: {name} holds values that are not finite", "name another file"
            )
    return Taken(given.path, fitting.told(kinds, theirs), given.sha256)
