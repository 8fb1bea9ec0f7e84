"""A teacher's weights from a run, a checkpoint or a file, and the teacher itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from autotrain import earlier
from autotrain.errors import AutotrainError
from autotrain.foreign import fitting
from autotrain.foreign.weights import PICKLED, SAFE, read

_WEIGHTS = ("ema.safetensors", "model.safetensors")  # averaged ones are those that were evaluated
_HINT = "name a run's folder, one of its checkpoints, or a .safetensors or .pt file"
_POINTER_BYTES = 256
_NAMED = 5  # faults that a message lists


def weights_file(place: Path) -> Path:
    """The file that `place` means: a run's folder (its best checkpoint, else its latest), its
    `checkpoints` folder, a pointer in there, a checkpoint's folder, or a file of weights.

    Raises AutotrainError where there is none.
    """
    if place.is_file():
        return place if place.suffix in (SAFE, *PICKLED) else _pointed(place)
    for folder in (place, place / "checkpoints"):
        for name in (*_WEIGHTS, "best", "latest"):
            if (folder / name).is_file():
                return weights_file(folder / name)
    raise AutotrainError(f"{place.absolute()}: no checkpoint of a teacher there", _HINT)


def _pointed(pointer: Path) -> Path:
    with open(pointer, "rb") as file:
        name = file.read(_POINTER_BYTES).decode("utf-8", "replace").strip()
    own = bool(name) and Path(name).name == name
    found = [pointer.parent / name / each for each in _WEIGHTS] if own else []
    for path in found:
        if path.is_file():
            return path
    raise AutotrainError(f"{pointer}: names no checkpoint beside it", _HINT)


def load_teacher(make: Callable[[], nn.Module], place: Path) -> tuple[nn.Module, str]:
    """The model that `make` builds with the weights that `place` means, and their SHA-256.

    In eval mode, no gradients. Nothing is unpickled. While a plan is made, `stage:NAME` is a model
    that has not learned yet, without a digest: its memory and its time are what counts. Raises
    AutotrainError naming the file, and the tensors that do not match.
    """
    if earlier.is_pending(place):
        with torch.random.fork_rng(devices=[]):
            return make().eval().requires_grad_(False), ""
    path = weights_file(place)
    found = read(path)
    _verify(path, found.sha256)
    with torch.random.fork_rng(devices=[]):
        teacher = make()
    own = fitting.own_tensors(teacher)
    given = fitting.named_as(own, found.tensors)
    if faults := _faults(own, given):
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise AutotrainError(
            f"{path}: not of this teacher: {'; '.join(faults[:_NAMED])}{more}",
            "build the teacher as it was when these weights were saved",
        )
    teacher.load_state_dict({**given}, strict=False)
    return teacher.eval().requires_grad_(False), found.sha256


def _verify(path: Path, digest: str) -> None:
    """Raise AutotrainError where a checkpoint's manifest says that the file is another."""
    try:
        said = json.loads(path.with_name("manifest.json").read_bytes())["files"][path.name]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if said.get("sha256") != digest:
        raise AutotrainError(
            f"{path}: torn: its content is not what manifest.json says", "name another checkpoint"
        )


def _faults(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """What differs in names and shapes. Tied tensors are in a file once, under one name."""
    there = {_place(own[name]) for name in given if name in own}
    missing = [
        f"{n} is missing" for n, v in own.items() if n not in given and _place(v) not in there
    ]
    unknown = [f"{n} is unknown to it" for n in given if n not in own]
    shapes = [
        f"{n} is {list(given[n].shape)}, not {list(v.shape)}"
        for n, v in own.items()
        if n in given and given[n].shape != v.shape
    ]
    return sorted(shapes) + sorted(missing) + sorted(unknown)


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    # Tensors without elements have no place; each is its own.
    return (tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride())
