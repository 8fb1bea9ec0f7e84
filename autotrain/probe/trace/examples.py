"""A call of each sort of operator in a traced step, without its data: to be timed by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from autotrain.schema import Work

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

    `others`: for each tensor among `leaves`, which storages came in its place.
    """

    func: Any
    leaves: tuple[Any, ...]
    tree: Any
    work: Work
    calls: int = 1
    others: dict[int, set[int]] = field(default_factory=dict)


class Examples:
    """Collects them. One is an operator with what it costs like."""

    def __init__(self) -> None:
        self.found: dict[tuple[Any, Work], Example] = {}

    def add(self, func: Any, args: Any, kwargs: Any, work: Work, births: dict[int, Any]) -> None:
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
            if isinstance(leaf, torch.Tensor):
                seen = known.others.setdefault(place, set())
                if len(seen) < MANY:
                    born = births.get(leaf.untyped_storage()._cdata)
                    seen.add(-known.calls if born is None else born.number or 0)

    def all(self) -> list[Example]:
        """In the order in which they first came."""
        return [*self.found.values()]


def _strided(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
