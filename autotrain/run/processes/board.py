"""Gradients of ranks on the processors of one machine, added up in memory that they share.

Through gloo they go by TCP, which takes the processor that the next micro-batch wants. Here each
rank puts its own down and, when all have met, adds up what all have put. It puts them down in two
places in turn: who is late still reads the other.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from autotrain.run.processes.ranks import Ranks
from autotrain.run.processes.sharing import as_rank_0
from autotrain.run.processes.window import LossOf
from autotrain.run.state import Run

PLACE = Path("/dev/shm")
# Of what is free there: other programs need some too, loader workers above all.
SHARE = 0.25


class Board:
    """In shared memory, for each of two turns, a row of each rank: every gradient, and of each
    whether there is one.
    """

    def __init__(self, run: Run, ranks: Ranks, rows: torch.Tensor) -> None:
        self.rank, self.turn = ranks.rank, 0
        self.loss = LossOf(run.model)
        self.loss.run = run
        self.parameters = run.parameters
        self.count = sum(parameter.numel() for parameter in self.parameters)
        self.rows = rows.view(2, ranks.world, -1)
        self.sums = torch.empty(self.rows.shape[-1], dtype=rows.dtype)
        self._mine = [self._places(self.rows[turn, self.rank]) for turn in range(2)]
        self._whole = self._places(self.sums)
        as_rank_0(run.model)

    def _places(self, row: torch.Tensor) -> list[torch.Tensor]:
        """For each gradient its place, laid out as its parameter: optimizers go by address."""
        parts = torch.split(row[: self.count], [p.numel() for p in self.parameters])
        pairs = zip(parts, self.parameters, strict=True)
        return [part.as_strided(p.shape, p.stride(), part.storage_offset()) for part, p in pairs]

    def begin(self) -> None:
        """A window begins."""

    def total(self, batch: Any, *, last: bool) -> torch.Tensor:
        """The loss of a micro-batch."""
        del last
        made: torch.Tensor = self.loss(batch)
        return made

    @torch.no_grad()
    def end(self) -> None:
        """Put the gradients down."""
        row, there = self.rows[self.turn, self.rank], [p.grad is not None for p in self.parameters]
        if not all(there):
            row.zero_()
        pairs = zip(self._mine[self.turn], self.parameters, strict=True)
        found = [(place, p.grad) for place, p in pairs if p.grad is not None]
        if found:
            torch._foreach_copy_([place for place, _ in found], [grad for _, grad in found])
        row[self.count :] = torch.tensor(there)

    def finish(self) -> None:
        """Where this rank failed: nobody waits for what it would have put down."""

    @torch.no_grad()
    def done(self) -> None:
        """All have met: the gradients become the sums."""
        torch.sum(self.rows[self.turn], 0, out=self.sums)
        self.turn = 1 - self.turn
        used = self.sums[self.count :].tolist()
        for parameter, whole, ranks in zip(self.parameters, self._whole, used, strict=True):
            parameter.grad = whole if ranks else None

    def close(self) -> None:
        """A window was broken off; the next one begins anew."""


def board(run: Run, ranks: Ranks) -> Board | None:
    """One, where all ranks compute on processors of this machine and memory can be shared."""
    kinds = {parameter.dtype for parameter in run.parameters}
    dense = all(torch.empty_like(p).stride() == p.stride() for p in run.parameters)
    here = run.device.type == "cpu" and ranks.local_world == ranks.world
    if not here or not dense or len(kinds) != 1 or sys.platform != "linux":
        return None
    (dtype,) = kinds
    row = sum(parameter.numel() for parameter in run.parameters) + len(run.parameters)
    count = 2 * ranks.world * row
    path = ranks.from_first(lambda: _made(count * dtype.itemsize), "the run cannot begin")
    rows: torch.Tensor | None = None
    with suppress(OSError, RuntimeError):
        if path is not None:
            rows = torch.from_file(path, shared=True, size=count, dtype=dtype)
    everywhere = all(ranks.gather(rows is not None))
    if ranks.first and path is not None:
        os.unlink(path)  # it lives as long as somebody has it
    return Board(run, ranks, rows) if everywhere and rows is not None else None


def _made(size: int) -> str | None:
    """A file of so many bytes in shared memory; None where there is no room."""
    try:
        room = os.statvfs(PLACE)
        if size > SHARE * room.f_bavail * room.f_frsize:
            return None
        handle, path = tempfile.mkstemp(prefix="autotrain-", dir=PLACE)
    except OSError:
        return None
    try:
        os.posix_fallocate(handle, 0, size)  # a write that finds no room would kill
    except OSError:
        os.unlink(path)
        return None
    finally:
        os.close(handle)
    return path
