"""A call of each sort of operator in a traced step, without its data: to be timed by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from autotrain.schema import Work

# What was touched before so many other bytes is not in the caches any more.
CACHE_BYTES = 16 << 20
# Above so many of a sort it does not matter how many.
MANY = 64


@dataclass(frozen=True)
class Hollow:
    """A tensor without its numbers."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Hollow:
        """The shape that it has."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)


@dataclass
class Example:
    """One operator's calls of one sort: what the first of them got, and how many there were.

    `others`: for each tensor among `leaves`, which storages came in its place; `near`: in how
    many calls it had been touched so shortly before that a cache still holds it.
    """

    func: Any
    leaves: tuple[Any, ...]
    tree: Any
    work: Work
    calls: int = 1
    others: dict[int, set[int]] = field(default_factory=dict)
    near: dict[int, int] = field(default_factory=dict)


class Examples:
    """Collects them. One is an operator with what it costs like."""

    def __init__(self) -> None:
        self.found: dict[tuple[Any, Work], Example] = {}
        self.moved = 0.0  # bytes, by all operators so far
        self.touched: dict[int, float] = {}  # by storage, what had been moved by then

    def add(
        self, func: Any, args: Any, kwargs: Any, work: Work, births: dict[int, Any],
        outputs: Sequence[torch.Tensor] = (),
    ) -> None:  # fmt: skip
        """One more call. `births`: by storage, what has a `number` of its own."""
        known = self.found.get((func, work))
        leaves, tree = pytree.tree_flatten((args, kwargs))
        if known is None:
            hollow = tuple(Hollow.of(x) if _strided(x) else x for x in leaves)
            if any(isinstance(leaf, torch.Tensor) for leaf in hollow):
                return
            known = self.found[func, work] = Example(func, hollow, tree, work, 0)
        known.calls += 1
        for place, leaf in enumerate(leaves):
            if _strided(leaf):
                seen = known.others.setdefault(place, set())
                if len(seen) < MANY:
                    born = births.get(_key(leaf))
                    seen.add(-known.calls if born is None else born.number or 0)
                if self.moved - self.touched.get(_key(leaf), -math.inf) < CACHE_BYTES:
                    known.near[place] = known.near.get(place, 0) + 1
        self.moved += work.bytes
        for tensor in (*leaves, *outputs):
            if _strided(tensor):
                self.touched[_key(tensor)] = self.moved

    def all(self) -> list[Example]:
        """In the order in which they first came."""
        return [*self.found.values()]


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _strided(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
