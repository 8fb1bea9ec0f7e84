"""Copies of tensors in RAM that share memory with no model, and whether what they hold is finite.

Training waits while they are made. A model can have thousands of tensors of a few bytes, and a call
for each of them takes longer than its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def own_copy(value: torch.Tensor) -> torch.Tensor:
    """A CPU copy that shares memory with nothing; one from the CPU keeps the order of its bytes."""
    held = value.detach()
    if held.is_cpu and type(value) in _PLAIN:  # one call, and none of its bytes change places
        return held.clone()
    copy = torch.empty(value.shape, dtype=value.dtype)
    copy.copy_(held)
    return copy


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every floating-point value is finite."""
    # The least and the greatest are not finite if any is: one pass, where isfinite makes a mask.
    ends: dict[torch.dtype, list[torch.Tensor]] = {}
    for held in tensors:
        value = torch.view_as_real(held) if held.is_complex() else held
        if value.is_floating_point() and value.numel():
            ends.setdefault(value.dtype, []).extend(torch.aminmax(_as_it_lies(value)))
    return all(bool(torch.stack(alike).isfinite().all()) for alike in ends.values())


def _as_it_lies(value: torch.Tensor) -> torch.Tensor:
    """The same values; those of a channels-last tensor in the order that they have in memory."""
    if value.is_contiguous():
        return value
    return value.permute(sorted(range(value.dim()), key=value.stride, reverse=True))
