"""A traced step written down operator by operator, so that it can be played again for real.

Tensors become slots: one for each way a storage was looked at. `probe/replay.py` plays it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree


class Look(NamedTuple):
    """How a tensor looks at its storage."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class Slot(NamedTuple):
    """Where a played tensor is kept."""

    number: int


class Call(NamedTuple):
    """One operator: its arguments with slots for tensors, and the slots its results go to.

    A result that is no tensor has none.
    """

    func: Any
    leaves: tuple[Any, ...]
    tree: Any
    outputs: tuple[int | None, ...]
    single: bool  # it is one tensor, by itself
    asked: bool  # by Python; else torch called it on the way, as all that a backward pass does


class Alias(NamedTuple):
    """A slot that looks in another way at the storage of a slot that is there."""

    slot: int
    base: int
    look: Look


class Free(NamedTuple):
    """Slots whose storage dies here."""

    slots: tuple[int, ...]


Step = Call | Alias | Free


@dataclass(frozen=True)
class Given:
    """A storage that was there before: a weight, the batch. `values`: where they are known."""

    slot: int
    look: Look
    elements: int
    values: torch.Tensor | None


@dataclass
class Program:
    """What a step did, in order. `marks`: where its parts begin. `whole`: nothing is missing."""

    steps: list[Step] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    slots: int = 0
    whole: bool = True


class Recorder:
    """Writes a program down while a counter listens."""

    def __init__(self) -> None:
        self.program = Program()
        self._seen: dict[int, dict[Look, int]] = {}  # by storage: the slot of each look
        self._values: dict[int, torch.Tensor] = {}  # by storage of a fake tensor
        self._asker = (0, 0)  # the frame that asked last, and where in it

    def known(self, fake: torch.Tensor, real: torch.Tensor) -> None:
        """This fake tensor stands for that one."""
        if isinstance(fake, FakeTensor) and real.layout == torch.strided:
            self._values[_key(fake)] = real

    def mark(self) -> None:
        """A part of the step begins."""
        self.program.marks.append(len(self.program.steps))

    def call(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """One operator has run."""
        leaves, tree = pytree.tree_flatten((args, kwargs))
        results = pytree.tree_leaves(out)
        tensors = [x for x in (*leaves, *results) if isinstance(x, torch.Tensor)]
        if any(tensor.layout != torch.strided for tensor in tensors):
            self.program.whole = False
            return
        taken = tuple(Slot(self._slot(x)) if isinstance(x, torch.Tensor) else x for x in leaves)
        frame = sys._getframe(2)  # beyond the counter's
        asker, before = (id(frame), frame.f_lasti), self._asker
        self._asker = asker
        put = tuple(self._put(x) if isinstance(x, torch.Tensor) else None for x in results)
        self.program.steps.append(
            Call(func, taken, tree, put, isinstance(out, torch.Tensor), asker != before)
        )

    def freed(self, key: int) -> None:
        """A storage is gone."""
        looks = self._seen.pop(key, None)
        self._values.pop(key, None)
        if looks:
            self.program.steps.append(Free(tuple(looks.values())))

    def _slot(self, tensor: torch.Tensor) -> int:
        looks, look = self._seen.setdefault(_key(tensor), {}), _look(tensor)
        if look in looks:
            return looks[look]
        slot = looks[look] = self._new()
        others = [n for each, n in looks.items() if n != slot and each.dtype == look.dtype]
        if others:
            self.program.steps.append(Alias(slot, others[0], look))
        elif len(looks) > 1:
            self.program.whole = False  # seen as another dtype, and by no operator
        else:
            self._give(tensor, slot, look)
        return slot

    def _put(self, tensor: torch.Tensor) -> int:
        looks = self._seen.setdefault(_key(tensor), {})
        look = _look(tensor)
        if look not in looks:
            looks[look] = self._new()
        return looks[look]

    def _give(self, tensor: torch.Tensor, slot: int, look: Look) -> None:
        values = self._values.get(_key(tensor))
        if values is None and not isinstance(tensor, FakeTensor):
            values = tensor
        elements = tensor.untyped_storage().nbytes() // tensor.element_size()
        self.program.given.append(Given(slot, look, elements, values))

    def _new(self) -> int:
        self.program.slots += 1
        return self.program.slots - 1


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _look(tensor: torch.Tensor) -> Look:
    return Look(
        tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()), tensor.dtype
    )
