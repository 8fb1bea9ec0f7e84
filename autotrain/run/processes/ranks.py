"""Several processes that train one model: how they meet, agree, and end together.

Each is a rank of a process group that torchrun (or `autotrain run --nproc`) made. All go the same
way: what a decision depends on is added up over all ranks before it is made, a wish to stop counts
where all have met, and what fails in one fails in all, told once, by rank 0. Only rank 0 writes.

Small figures go through gloo, on the host, which on a GPU waits for nothing there; what lies on
a GPU goes through NCCL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from autotrain.batches import map_tensors
from autotrain.run.healing import faults
from autotrain.run.meter import Number
from autotrain.run.processes.cause import Cause, LostError
from autotrain.run.processes.lockstep import Lockstep
from autotrain.run.signals import Reason, Stop

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from autotrain.run.processes.board import Board
    from autotrain.run.processes.ddp import Adding
    from autotrain.run.processes.sharing import Buffers
    from autotrain.run.state import Run

Made = TypeVar("Made")
# As long as others may take to save a checkpoint or to compile; one that is gone is seen at once.
PATIENCE = timedelta(minutes=30)
REASONS: tuple[Reason, ...] = ("terminated", "interrupted")
# How long to look for the reason of one that is gone, and for rank 0 to finish its report.
CAREFUL = 3  # updates
REASON, FAREWELL = timedelta(seconds=5), timedelta(minutes=10)


class Ranks:
    """This process among its like. `own` is its wish to stop, `stop` what all agreed on.

    `told`: the last failure is known to all, and rank 0 says it.
    """

    def __init__(self, store: Store, rank: int, world: int, local: tuple[int, int]) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.local_rank, self.local_world = local
        self.own, self.stop = Stop(), Stop()
        self.told = False
        self.names: list[str] = []
        self.updates = 0
        self.lock = Lockstep(self)
        # Of the step (see parallel): what adds gradients up, the parameters that is for, the
        # buffers, and what the window before weighed.
        self.adding: Adding | Board | None = None
        self.trained: list[int] = []
        self.buffers: Buffers | None = None
        self.weight: Number | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """Which of so many micro-batches are this rank's."""
        return range(self.rank, count, self.world)

    @contextmanager
    def updating(self, run: Run) -> Iterator[None]:
        """Around an update. What fails in one of the first on one rank fails on all.

        Later ones take no other memory: if one fails after all, its rank ends and says why.
        """
        step = run.state.step
        careful, self.updates = run.shards is not None or self.updates < CAREFUL, self.updates + 1
        try:
            with self.lock.section(f"step {step + 1}") if careful else nullcontext():
                yield
        except Exception as error:
            run.committing, run.state.step = True, step
            if careful:
                raise
            raise faults.explained(error, f"step {step + 1}") from error

    def drop(self) -> None:
        """A window was broken off, or there is no other."""
        if self.adding is not None:
            self.adding.close()
        self.adding = None

    def agreed(self, own: Stop) -> Stop:
        """A run begins: its wish to stop, which changes only where all ranks meet."""
        self.own, self.stop = own, Stop()
        self.drop()
        self.names, self.buffers, self.weight = [], None, None
        self.updates = 0
        return self.stop

    def meet(
        self, sums: Mapping[str, Number], flags: Mapping[str, float], error: Exception | None,
        doing: str,
    ) -> tuple[dict[str, Number], dict[str, float]] | None:  # fmt: skip
        """Every rank's sums and flags added up, and in `stop` whether one wishes to stop.

        A rank that does not know a name counts 0 there. Where one failed, all raise its error;
        None where one wishes to stop besides, which may be why.
        """
        asks: dict[str, float] = {reason: float(self.own.reason == reason) for reason in REASONS}
        strange = any(name not in self.names for name in sums)
        asks["save"] = float(self.own.save)
        mine: dict[str, float] = {**flags, **asks, "failed": error is not None, "strange": strange}
        added, figures = self._added([float(flag) for flag in mine.values()], sums)
        found = dict(zip(mine, added, strict=True))
        self.stop.reason = next((reason for reason in REASONS if found[reason]), None)
        if found["save"]:
            self.own.save, self.stop.save = False, True
        if found["failed"]:
            if self.stop.reason is not None:
                return None
            self.compare(error, doing)
        if found["strange"]:
            self.names = sorted({*self.names}.union(*self.gather(list(sums))))
            _, figures = self._added([], sums)
        self.told = False
        return figures, found

    def _added(
        self, flags: list[float], sums: Mapping[str, Number]
    ) -> tuple[list[float], dict[str, Number]]:
        """One small collective on the host, and one on the device if the sums lie there."""
        values = [sums.get(name, 0.0) for name in self.names]
        there = next((v.device for v in values if isinstance(v, torch.Tensor)), None)
        host = [*flags, *(values if there is None else ())]
        together = torch.tensor(host, dtype=torch.float64)
        with self.meeting():
            dist.all_reduce(together)
        if there is None:
            added = together.tolist()
            return added[: len(flags)], dict(zip(self.names, added[len(flags) :], strict=True))
        figures = torch.stack([_as_scalar(value, there) for value in values])
        with self.meeting():
            dist.all_reduce(figures)
        return together.tolist(), dict(zip(self.names, figures.unbind(), strict=True))

    def gather(self, item: Made) -> list[Made]:
        """Everybody's, in order of rank."""
        items: list[Any] = [None] * self.world
        with self.meeting():
            dist.all_gather_object(items, item)
        return items

    def total(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sums by name over all ranks, whoever has them."""
        everybody = self.gather(dict(sums))
        names = {name: None for each in everybody for name in each}
        return {name: math.fsum(each.get(name, 0.0) for each in everybody) for name in names}

    def compare(self, error: Exception | None, doing: str) -> None:
        """Raise on all ranks what failed on the first of those where anything did."""
        causes = self.gather(None if error is None else Cause.of(error, doing))
        rank = next((rank for rank, cause in enumerate(causes) if cause is not None), None)
        self.told = rank is not None
        if rank is None:
            return
        cause = causes[rank]
        assert cause is not None
        if rank == self.rank and error is not None:
            raise error
        if any(other != cause for other in causes):
            cause = cause._replace(message=f"process {rank}: {cause.message}")
        raise cause.error() from None

    @contextmanager
    def together(self, doing: str) -> Iterator[None]:
        """Where one rank cannot go on behind it, none does."""
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.told or isinstance(error, LostError):
                raise
            failed = error
        self.compare(failed, doing)

    def from_first(self, make: Callable[[], Made], doing: str) -> Made:
        """What rank 0 makes, on all ranks; tensors arrive on the CPU."""
        box: list[Any] = [None]
        sent: list[torch.Tensor] = []

        def shape(tensor: torch.Tensor) -> torch.Tensor:
            sent.append(tensor)
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

        def arrived(like: torch.Tensor) -> torch.Tensor:
            empty = torch.empty(like.shape, dtype=like.dtype)
            tensor = next(own).contiguous() if self.first else empty
            dist.broadcast(tensor, 0)
            return tensor

        with self.together(doing):
            if self.first:
                made = make()
                box = [map_tensors(shape, made)]
        own = iter(sent)
        with self.meeting():
            dist.broadcast_object_list(box, 0)
            received: Made = map_tensors(arrived, box[0])
        return made if self.first else received

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Within, a broken connection is told by its cause, if that left a word."""
        try:
            yield
        except RuntimeError as error:
            raise self.lost() from error

    def lost(self) -> Exception:
        """Why another is gone."""
        with suppress(Exception):
            self.store.wait(["cause"], REASON)
            self.told = True
            rank, *said = self.store.get("cause").decode().split("\0")
            cause = Cause(*said)
            # Not to be healed: who could take part in it is gone.
            kind = "DoesNotFitError" if cause.kind == "memory" else cause.kind
            return cause._replace(kind=kind, message=f"process {rank}: {cause.message}").error()
        return LostError(
            "another process of this run ended without a word", "--resume goes on where it stopped"
        )

    def leave_word(self, error: Exception, doing: str) -> bool:
        """Tell the others why this one goes; whether that reached them."""
        if self.first:
            return False
        with suppress(Exception):
            self.store.set("cause", "\0".join([str(self.rank), *Cause.of(error, doing)]))
            return True
        return False

    def farewell(self) -> None:
        """Nobody goes before rank 0 has said and written all: an agent would end it too.

        Nor does rank 0 before the others have read what it told them last.
        """
        with suppress(Exception):
            if not self.first:
                self.store.wait(["farewell"], FAREWELL)
                self.store.set(f"farewell of {self.rank}", "")
                return
            self.store.set("farewell", "")
            if not self.told:
                others = [f"farewell of {rank}" for rank in range(1, self.world)]
                self.store.wait(others, REASON)


def together(ranks: Ranks | None, doing: str) -> AbstractContextManager[None]:
    """Within, a process that cannot go on keeps the others back."""
    return nullcontext() if ranks is None else ranks.together(doing)


def from_first(ranks: Ranks | None, make: Callable[[], Made], doing: str) -> Made:
    """What this process makes itself, where it is alone."""
    return make() if ranks is None else ranks.from_first(make, doing)


def _as_scalar(value: Number, device: torch.device) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, torch.float64).reshape(())
    return torch.full((), value, dtype=torch.float64, device=device)
