"""Samples kept where the model computes, as columns: a micro-batch is then picked out of them.

As with those kept in RAM, only of a set whose samples are the same at every reading: that reading
draws no random numbers, and that two readings of some agree. And only where torch's own collate
stacks them, so that a row of a batch is its sample's whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from autotrain.batches import map_tensors
from autotrain.device import out_of_memory
from autotrain.run.loading.itinerary import Request
from autotrain.run.loading.kept import alike
from autotrain.run.loading.source import Made, Source
from autotrain.units import bytes_text

PROOFS = 8


class Shelves:
    """Those of the training and of the validation set; each takes at most `room` bytes."""

    def __init__(
        self, source: Source, counts: tuple[int, int], room: float, move: Callable[[Any], Any]
    ) -> None:
        train, valid, collate = source.carried.value
        self._both = tuple(
            Shelf(count, room, dataset.__getitem__, move)
            for count, dataset in zip(counts, (train, valid), strict=True)
        )
        self._told = [False, False]
        if collate is not default_collate:
            for each in self._both:
                each.why = "the task has a collate of its own"

    @property
    def whole(self) -> bool:
        """Whether all samples are there."""
        return all(shelf.whole for shelf in self._both)

    def rows(self, request: Request) -> Any:
        """The batch that is asked for; None where a sample of it is not there."""
        return self._both[request.epoch is None].rows(request.indices)

    def keep(self, request: Request, made: Made, moved: Any) -> str:
        """Keep what was made, and is on the device by now. Why that cannot be, told once."""
        valid = request.epoch is None
        shelf = self._both[valid]
        if shelf.whole:
            return ""
        shelf.offer(request.indices, made, moved)
        if not shelf.why or self._told[valid]:
            return ""
        self._told[valid] = True
        kind = "validation" if valid else "training"
        return f"the {kind} samples are not kept on the device: {shelf.why}"


class Shelf:
    """The `count` samples of one set, in at most `room` bytes on the device.

    `read` reads one again; `move` brings tensors to the device, and never makes the host wait for
    it. `why`: nothing is kept, for this reason.
    """

    def __init__(
        self, count: int, room: float, read: Callable[[int], Any], move: Callable[[Any], Any]
    ) -> None:
        self.count, self.room, self.why = count, room, ""
        self._read, self._move, self._proofs = read, move, PROOFS
        self._known, self._missing = bytearray(count), count
        self._columns: Any = None  # like a batch, with a row for each sample
        self._parts: list[torch.Tensor] = []

    @property
    def whole(self) -> bool:
        """Whether all samples are there."""
        return not self._missing and not self.why

    def rows(self, indices: Sequence[int]) -> Any:
        """The batch of these samples; None where one is not there."""
        if self.why or (self._missing and not all(self._known[index] for index in indices)):
            return None
        places = self._move(torch.tensor(indices))
        return map_tensors(lambda column: column.index_select(0, places), self._columns)

    def offer(self, indices: Sequence[int], made: Made, moved: Any) -> None:
        """Keep what was made of these samples; `moved` is its batch on the device."""
        if self.why:
            return
        self.why = self._refused(indices, made) or self._begun(moved)
        if self.why:
            self._columns, self._parts = None, []
            return
        places = self._move(torch.tensor(indices))
        for column, part in zip(self._parts, _leaves(moved) or (), strict=True):
            column.index_copy_(0, places, part)
        for index in indices:
            self._missing -= not self._known[index]
            self._known[index] = 1

    def _refused(self, indices: Sequence[int], made: Made) -> str:
        """Why these cannot be kept."""
        parts = _leaves(made.batch)
        if made.drawn:
            return "reading them draws random numbers"
        if made.left < len(indices):
            return "not all of them can be read"
        if not parts or any(not part.dim() or len(part) != len(indices) for part in parts):
            return "they are not made of tensors and numbers alone"
        if self._parts and [_shape(p) for p in parts] != [_shape(c) for c in self._parts]:
            return "they are not all of one size"
        for place, index in enumerate(indices):
            if not self._proofs:
                break
            self._proofs -= 1
            if not self._agrees(index, [part[place] for part in parts]):
                return f"two readings of sample {index} differ"
        return ""

    def _agrees(self, index: int, row: list[torch.Tensor]) -> bool:
        try:
            again = _leaves(default_collate([self._read(index)]))
        except Exception:  # it does not read twice
            return False
        return len(again or ()) == len(row) and all(
            alike(one, other[0]) for one, other in zip(row, again or (), strict=True)
        )

    def _begun(self, moved: Any) -> str:
        """Make room for all samples, if that is not done yet. Why there is none."""
        if self._parts:
            return ""
        size = sum(part.nbytes // len(part) for part in _leaves(moved) or ()) * self.count
        if size > self.room:
            return f"they take {bytes_text(size)} and {bytes_text(self.room)} are free for them"
        try:
            self._columns = map_tensors(lambda t: t.new_empty((self.count, *t.shape[1:])), moved)
        except RuntimeError as error:
            if out_of_memory(error):
                return f"there is no room for {bytes_text(size)} on the device"
            raise
        self._parts = _leaves(self._columns) or []
        return ""


def _shape(part: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    return part.shape[1:], part.dtype


def _leaves(batch: Any) -> list[torch.Tensor] | None:
    """The tensors of a batch, in the order of `map_tensors`; None: it holds something else too."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        batch = [*batch.values()]
    if not isinstance(batch, list | tuple):
        return None
    parts = [_leaves(part) for part in batch]
    return None if None in parts else [leaf for part in parts for leaf in part or ()]
