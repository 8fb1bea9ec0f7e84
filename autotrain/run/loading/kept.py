"""Samples kept in memory, so that each is read once in a run and not once in an epoch.

Only of a set whose samples are the same at every reading. Nobody can know that; what can be seen
is that reading draws no random numbers (see calm) and that two readings of some agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch

PROOFS = 8
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Kept:
    """At most `room` bytes of samples of the training (False) and the validation set (True)."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._samples: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
        self._proofs = [PROOFS, PROOFS]
        self._changing = [False, False]

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker leaves behind what was kept here."""
        return self.__dict__ | {"_samples": ({}, {})}

    def find(self, valid: bool, index: int) -> Any:
        """A copy of the sample, or None: whoever gets it may change it."""
        found = self._samples[valid].get(index)
        return None if found is None else copied(found)

    def offer(self, valid: bool, index: int, sample: Any, read: Callable[[int], Any]) -> None:
        """A sample as it was read; `read` reads one again."""
        if self._changing[valid]:
            return
        try:
            mine = copied(sample)
            if self._proofs[valid]:
                self._proofs[valid] -= 1
                if not same(mine, copied(read(index))):
                    self.forget(valid)
                    return
        except Exception:  # of a kind that nobody here can copy, or it does not read twice
            self.forget(valid)
            return
        size = bytes_of(mine)
        if size <= self.room:
            self.room -= size
            self._samples[valid][index] = mine

    def forget(self, valid: bool) -> None:
        """Samples of this set are not the same each time."""
        self._changing[valid] = True
        self.room += sum(bytes_of(sample) for sample in self._samples[valid].values())
        self._samples[valid].clear()


def copied(item: Any) -> Any:
    """A copy that shares nothing that could be changed. Raises TypeError for what it cannot be."""
    kind = type(item)
    if kind in _PLAIN or isinstance(item, numpy.generic):
        return item
    if kind is torch.Tensor and not item.requires_grad:
        return item.clone()
    if kind is numpy.ndarray and not item.dtype.hasobject:
        return item.copy(order="K")
    if kind is dict:
        return {key: copied(value) for key, value in item.items()}
    if kind in (list, tuple):
        return kind(copied(part) for part in item)
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return kind(*(copied(part) for part in item))
    raise TypeError(f"a {kind.__name__} is not copied")


def same(a: Any, b: Any) -> bool:
    """Whether two copies are equal in all they hold; a value that is missing (NaN) is to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return alike(a, b)
    if isinstance(a, numpy.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return [*a] == [*b] and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | complex | numpy.generic):
        return same(numpy.asarray(a), numpy.asarray(b))
    return bool(a == b)


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same, to the bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    one, other = (each.contiguous().reshape(-1).view(torch.uint8) for each in (a, b))
    return torch.equal(one, other)


def bytes_of(item: Any) -> int:
    """About what a copy takes."""
    if isinstance(item, torch.Tensor | numpy.ndarray):
        return int(item.nbytes) + 128
    if isinstance(item, dict):
        return 128 + sum(bytes_of(value) for value in item.values())
    if isinstance(item, list | tuple):
        return 64 + sum(bytes_of(part) for part in item)
    return 32 + (len(item) if isinstance(item, str | bytes) else 0)
