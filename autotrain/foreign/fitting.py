"""Which of a file's tensors a model takes over, by name and shape, and how a person is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autotrain.errors import AutotrainError, one_line

_KINDS = ("taken over", "new", "new, of another shape", "left behind")
TAKEN = _KINDS[0]
# Prefixes are guessed from so many of the model's names, and so many guesses are followed up.
_ASKED, _GUESSES = 32, 8
_PARTS_TOLD = 40


def own_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a model, without what else its state may hold."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def kinds(mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """What becomes of each of the model's tensors. Of tied ones, one name in the file will do."""
    found = {name: _kind(value, theirs.get(name)) for name, value in mine.items()}
    taken = {_place(mine[name]) for name, kind in found.items() if kind == TAKEN}
    tied = (name for name in found if name not in theirs and _place(mine[name]) in taken)
    return found | dict.fromkeys(tied, TAKEN)


def named_as(
    mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The file's tensors without the prefix that a wrapper put before the model's own names.

    DDP says `module.`, Lightning the name of an attribute, a compiled model `_orig_mod.`: that
    prefix is taken off, if any, with which most of the tensors fit.
    """
    guesses: Counter[str] = Counter()
    for asked in [f".{name}" for name in list(mine)[:_ASKED]]:
        guesses.update(name[: 1 - len(asked)] for name in theirs if name.endswith(asked))
    best = max(
        ("", *(prefix for prefix, _ in guesses.most_common(_GUESSES))),
        key=lambda prefix: sum(
            _kind(value, theirs.get(prefix + name)) == TAKEN for name, value in mine.items()
        ),
    )
    if not best:
        return dict(theirs)
    return {name.removeprefix(best): value for name, value in theirs.items()}


def insist_on_half(path: Path, found: Mapping[str, str], theirs: Mapping[str, Any]) -> None:
    """Raise AutotrainError where fewer than half of the model's tensors are taken over."""
    fits = sum(kind == TAKEN for kind in found.values())
    if 2 * fits < len(found) or not fits:
        raise AutotrainError(
            f"{path}: {fits} of the model's {len(found)} tensors are in it: {told(found, theirs)}",
            "weights of the same architecture are needed",
        )


def copy_into(
    mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], found: Mapping[str, str]
) -> None:
    """Copy what is taken over, in the model's own precision and place."""
    with torch.no_grad():
        for name, kind in found.items():
            if kind == TAKEN and name in theirs:
                mine[name].copy_(theirs[name])


def told(found: Mapping[str, str], theirs: Mapping[str, Any]) -> str:
    """`encoder.*: 34 tensors taken over; decoder.*: 12 new`, by the model's outermost parts."""
    counts: dict[str, dict[str, int]] = {}
    left = {name: "left behind" for name in theirs if name not in found}
    for name, kind in {**found, **left}.items():
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
        lines.append(f"{one_line(part, 60)}: {', '.join(texts)}")
    more = len(lines) - _PARTS_TOLD
    return "; ".join(lines[:_PARTS_TOLD]) + (f"; and {more} more parts" if more > 0 else "")


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    storage = tensor.untyped_storage()
    return storage._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()


def _kind(mine: torch.Tensor, theirs: torch.Tensor | None) -> str:
    if theirs is None:
        return "new"
    alike = mine.shape == theirs.shape
    same_kind = mine.is_floating_point() == theirs.is_floating_point()
    return TAKEN if alike and same_kind else "new, of another shape"
