"""Copies of tensors in RAM that share memory with no model, and whether what they hold is finite.

Training waits while they are made. A model can have thousands of tensors of a few bytes, and a call
for each of them takes longer than its bytes: small ones lie side by side in one piece of memory,
which is looked through as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

# Larger ones take longer to copy than to ask for; and new memory of that size costs page by page.
SMALL_BYTES = 32 << 10
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def own_copy(value: torch.Tensor) -> torch.Tensor:
    """A contiguous CPU copy that shares memory with nothing."""
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def own_copies(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Contiguous CPU copies, in their order; small ones of one dtype share a piece of memory."""
    small: dict[torch.dtype, list[int]] = {}
    copies: dict[int, torch.Tensor] = {}
    for place, value in enumerate(values):
        if value.device.type == "cpu" and value.nbytes <= SMALL_BYTES and type(value) in _PLAIN:
            small.setdefault(value.dtype, []).append(place)
        else:
            copies[place] = own_copy(value)
    for dtype, places in small.items():
        alike = [values[place].detach() for place in places]
        sizes = [value.numel() for value in alike]
        parts = torch.split(torch.empty(sum(sizes), dtype=dtype), sizes)
        made = [part.view(value.shape) for part, value in zip(parts, alike, strict=True)]
        torch._foreach_copy_(made, alike)
        copies.update(zip(places, made, strict=True))
    return [copies[place] for place in range(len(values))]


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every floating-point value is finite."""
    own = [*tensors]
    pieces = {id(piece): piece for piece in (t if t._base is None else t._base for t in own)}
    # A piece may hold more than was asked about, such as a buffer of infinities.
    parts = any(tensor._base is not None for tensor in own)
    return _finite(pieces.values()) or (parts and _finite(own))


def _finite(tensors: Iterable[torch.Tensor]) -> bool:
    # The least and the greatest are not finite if any is: one pass, where isfinite makes a mask.
    ends: dict[tuple[Any, ...], list[torch.Tensor]] = {}
    for held in tensors:
        value = torch.view_as_real(held) if held.is_complex() else held
        if value.is_floating_point() and value.numel():
            ends.setdefault((value.dtype, value.device), []).extend(torch.aminmax(value))
    return all(bool(torch.stack(alike).isfinite().all()) for alike in ends.values())
