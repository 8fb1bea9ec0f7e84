"""Buffers of a model that several processes train: those of rank 0 count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def share_all(model: nn.Module, known: Buffers | None) -> None:
    """Before a model is tried: statistics and all else as rank 0 has them, but caches of each.

    `known`: what was found in training.
    """
    others = _places(model, norms=False) if known is None else known.others
    share(_places(model, norms=True) + others)


@torch.no_grad()
def as_rank_0(model: nn.Module) -> None:
    """Before the first step: a model that was built otherwise elsewhere is that of rank 0."""
    for tensor in (*model.parameters(), *model.buffers()):
        value = tensor.contiguous()
        dist.broadcast(value, 0)
        if value is not tensor:
            tensor.copy_(value)


class Buffers:
    """The model's buffers, of which those of rank 0 count.

    Statistics of norms do nothing in training: each rank gathers its own, and those of rank 0
    are taken where a model is tried. What else a checkpoint would keep (a codebook, say) may be
    part of the forward pass: where it changed, rank 0's go to all before the next step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.others = _places(model, norms=False)
        self.shapes = [_of(place).shape for place in self.others]
        self.marks = self._marks()
        self.stale = False

    def flags(self) -> dict[str, float]:
        """For the ranks to add up: whether any changed, and whether one cannot be shared."""
        if not self.others:
            return {"changed": 0.0, "odd": 0.0}
        odd = [_of(place).shape for place in self.others] != self.shapes
        return {"changed": float(self._marks() != self.marks), "odd": float(odd)}

    def found(self, flags: Mapping[str, float]) -> None:
        """Take note of what all ranks found. A buffer whose shape changes is a cache of each."""
        if flags["odd"]:
            self.others, self.shapes = [], []
        self.stale = bool(flags["changed"])

    def follow(self) -> None:
        """Before a step: as rank 0 has them, where they changed."""
        if self.stale:
            share(self.others)
            self.stale = False
            self.marks = self._marks()

    def _marks(self) -> list[tuple[int, int]]:
        return [(id(_of(place)), _of(place)._version) for place in self.others]


Place = tuple[dict[str, torch.Tensor | None], str]


def _places(model: nn.Module, *, norms: bool) -> list[Place]:
    """Where buffers lie that are kept in a checkpoint: those of norms, or the others."""
    return [
        (module._buffers, name)
        for module in model.modules()
        if isinstance(module, _NormBase) == norms
        for name, value in module._buffers.items()
        if value is not None and name not in module._non_persistent_buffers_set
    ]


def _of(place: Place) -> torch.Tensor:
    owner, name = place
    value = owner.get(name)
    return torch.empty(0) if value is None else value


@torch.no_grad()
def share(places: Sequence[Place]) -> None:
    """Buffers become those of rank 0."""
    for place in places:
        value = _of(place).contiguous()
        dist.broadcast(value, 0)
        _of(place).copy_(value)
