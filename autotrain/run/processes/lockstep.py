"""Ranks that do one thing after another together: none is left waiting for one that failed.

Before each thing that needs all of them, all say that they are there. One that failed says so
in place of that, wherever the others are by then.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from autotrain.errors import AutotrainError

if TYPE_CHECKING:
    from autotrain.run.processes.ranks import Ranks

WAYS = "the processes went different ways"
# Numbers in each exchange: three and two flags. One that failed fits in wherever the others are.
WIDTH = 5


class HaltedError(Exception):
    """Another rank failed. It says why at the end of the section."""


class Lockstep:
    """The steps of a section (see `section`), which all ranks take or none."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.halted = False

    def enter(self, what: str, *flags: bool) -> list[bool]:
        """All ranks are about to do this; returns which of the flags any has set.

        Raises HaltedError where one has failed, AutotrainError where one does something else.
        """
        tag = zlib.crc32(f"{what} {len(flags)}".encode())
        found = self._most([tag, -tag, 0, *flags])
        if found[2]:
            self.halted = True
            raise HaltedError
        if found[0] != -found[1]:
            self.halted = True
            places = ", ".join(f"{n} {place}" for n, place in enumerate(self.ranks.gather(what)))
            raise AutotrainError(
                f"{WAYS}: {places}",
                'a model whose way depends on its batch needs parallel.strategy = "ddp"',
            )
        return [bool(flag) for flag in found[3:]]

    def _fail(self) -> None:
        self.halted = True
        self._most([0, 0, 1])

    def _most(self, mine: list[int]) -> list[int]:
        """Of each number the largest that any rank has; as many of them on all, to fail too."""
        together = torch.tensor([*mine, *[0] * (WIDTH - len(mine))])
        with self.ranks.meeting():
            dist.all_reduce(together, dist.ReduceOp.MAX)
        found: list[int] = together.tolist()
        return found[: len(mine)]

    @contextmanager
    def section(self, doing: str) -> Iterator[None]:
        """Within, `enter` before each thing done together. Raises on all what failed on one."""
        failed: Exception | None = None
        self.halted = False
        try:
            yield
            self.enter(f"behind {doing}")
        except HaltedError:
            pass
        except Exception as error:
            failed = error
            if not self.halted:
                self._fail()
        if self.halted:
            self.ranks.compare(failed, doing)
