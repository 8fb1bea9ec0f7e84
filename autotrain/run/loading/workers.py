"""Loader workers: processes that make micro-batches ahead of the loop.

Each has a pipe of its own in both directions, so that the end of one is seen at once and leaves
no lock behind for the others; and each says, in a cell of shared memory, what it is at, so that
a worker that died or hangs can be told from its sample.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, MutableSequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import ProcessError
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch.multiprocessing
from torch.utils.data._utils import worker as torch_worker

from autotrain.offspring import safe_path, usual_path
from autotrain.run.loading import pipes
from autotrain.run.loading.itinerary import Request
from autotrain.run.loading.lost import Why, WorkerLostError, oom_kills
from autotrain.run.loading.source import (
    COLLATING,
    HANDING_OVER,
    IDLE,
    Fault,
    Made,
    Source,
    described,
)
from autotrain.run.signals import leave_to_parent, starting
from autotrain.schema import LoaderSection

# To start by spawn a worker imports torch and the task file.
START_SECONDS = 300.0
GRACE_SECONDS, DUMP_SECONDS, SUSPENDED_SECONDS = 2.0, 1.0, 0.25
_SIGBUS, _SIGKILL = (getattr(signal, name, 1 << 30) for name in ("SIGBUS", "SIGKILL"))
# What receiving raises where the sender ended in the middle of it.
CUT_OFF = (EOFError, OSError, RuntimeError, pickle.UnpicklingError, ProcessError)
CANNOT_TRAVEL = (pickle.PicklingError, AttributeError, TypeError)


@dataclass
class _Worker:
    process: Any
    requests: Connection
    results: Connection
    cell: MutableSequence[int]
    stacks: Path
    owed: deque[tuple[int, Request]] = field(default_factory=deque)
    ready: bool = False


class Workers:
    """`section.workers` processes, each with `section.prefetch` micro-batches to make or made.

    `by_pipe`: micro-batches come through the workers' pipes instead of shared memory.
    Raises what pickle raises where the source cannot travel, OSError and RuntimeError where the
    system starts no more processes.
    """

    def __init__(
        self, source: Source, requests: Iterator[Request], section: LoaderSection, *, by_pipe: bool
    ) -> None:
        self._requests, self._by_pipe = enumerate(requests), by_pipe
        # More would wait in the pipe, where neither end goes on before the other has read.
        self._prefetch = 1 if by_pipe else section.prefetch
        self._stuck_seconds, self._oom_kills = section.timeout_seconds, oom_kills()
        self._order, self._all = deque[_Worker](), list[_Worker]()
        self._folder = tempfile.TemporaryDirectory(prefix="autotrain-", ignore_cleanup_errors=True)
        try:
            for number in range(section.workers):
                self._all.append(self._started(number, source, section))
        except BaseException:
            self.kill()
            raise
        for _ in range(self._prefetch):
            for each in self._all:
                self._ask(each)

    def _started(self, number: int, source: Source, section: LoaderSection) -> _Worker:
        context: Any = torch.multiprocessing.get_context(section.start_method)
        (theirs_in, ours_out), (ours_in, theirs_out) = context.Pipe(False), context.Pipe(False)
        cell, stacks = context.RawArray("q", [IDLE, -1]), Path(self._folder.name, f"{number}.txt")
        ours = [ours_out, ours_in, *(c for w in self._all for c in (w.requests, w.results))]
        process = context.Process(
            target=_work,
            args=(number, section.workers, source, theirs_in, theirs_out, cell, stacks,
                  ours if section.start_method == "fork" else [], self._by_pipe),
            daemon=True,
        )  # fmt: skip
        try:
            with starting(), safe_path():
                process.start()
        finally:
            # With these open here, the end of the worker would not end its pipe.
            theirs_in.close()
            theirs_out.close()
        return _Worker(process, ours_out, ours_in, cell, stacks)

    def take(self) -> tuple[Request, Made]:
        """The next micro-batch in order. Raises WorkerLostError, StopIteration behind the last."""
        if not self._order:
            raise StopIteration
        worker = self._order[0]
        try:
            made = self._received(worker)
        except CUT_OFF as error:
            raise self._died(worker, error) from error
        if made.fault is not None and made.fault.lost:
            what, said, *_ = made.fault
            raise WorkerLostError(f"{what}: {said}", worker.owed[0][1], HANDING_OVER, "narrow")
        self._order.popleft()
        _, request = worker.owed.popleft()
        self._ask(worker)
        return request, made

    def owed(self) -> list[Request]:
        """The requests that were not answered yet, in order."""
        return [request for _, request in sorted(pair for w in self._all for pair in w.owed)]

    def dump_stacks(self) -> str:
        """Where each worker stands, line by line; nothing where the system has no SIGUSR1."""
        if not hasattr(signal, "SIGUSR1"):
            return "this system has no signal for it\n"
        before = [each.stacks.stat().st_size if each.stacks.exists() else 0 for each in self._all]
        for each in self._all:
            with suppress(OSError):  # it may have ended
                os.kill(each.process.pid, signal.SIGUSR1)
        deadline = monotonic() + DUMP_SECONDS
        while monotonic() < deadline and any(
            not each.stacks.exists() or each.stacks.stat().st_size == size
            for each, size in zip(self._all, before, strict=True)
        ):
            sleep(0.02)
        sleep(0.05)  # the rest of the last one
        parts = []
        for number, each in enumerate(self._all):
            text = each.stacks.read_text(errors="replace") if each.stacks.exists() else ""
            said = text or "does not answer: it waits inside the system, or has ended\n"
            parts.append(f"worker {number} (pid {each.process.pid})\n{said}")
        return "\n".join(parts)

    def kill(self) -> None:
        """End them at once, whatever they are at."""
        for each in self._all:
            each.process.kill()
        self._leave()

    def close(self) -> None:
        """End them: without their pipes they end by themselves, unless they read for long."""
        for each in self._all:
            each.requests.close()
            each.results.close()
        deadline = monotonic() + GRACE_SECONDS
        for each in self._all:
            each.process.join(max(deadline - monotonic(), 0.0))
        self.kill()

    def _leave(self) -> None:
        for each in self._all:
            each.process.join(GRACE_SECONDS)
            each.requests.close()
            each.results.close()
        self._folder.cleanup()

    def _ask(self, worker: _Worker) -> None:
        """One more micro-batch of it, if there is one to make."""
        pair = next(self._requests, None)
        if pair is None:
            return
        worker.owed.append(pair)
        self._order.append(worker)
        try:
            worker.requests.send(pair)
        except OSError:
            return  # it has ended; whoever waits for it will see

    def _received(self, worker: _Worker) -> Made:
        if not worker.ready:
            self._wait(worker, START_SECONDS)
            worker.results.recv()
            worker.ready = True
        self._wait(worker, self._stuck_seconds)
        made: Made = worker.results.recv()
        return made

    def _wait(self, worker: _Worker, seconds: float | None) -> None:
        """Until something has come, or the worker has ended, or stays where it is for too long."""
        before = [*worker.cell]
        while True:
            asked = monotonic()
            if wait([worker.results, worker.process.sentinel], seconds):
                break
            # Whoever was suspended himself has not waited.
            suspended = seconds is not None and monotonic() - asked > seconds + SUSPENDED_SECONDS
            if [*worker.cell] == before and not suspended:
                raise self._lost(worker, f"hangs: nothing for {seconds:g} s", "hangs")
            before = [*worker.cell]
        if not worker.results.poll():
            raise EOFError("the worker has ended")

    def _died(self, worker: _Worker, error: BaseException) -> WorkerLostError:
        worker.process.join(GRACE_SECONDS)
        code = worker.process.exitcode
        if code is None:  # it lives, and what it made does not get through
            said = f"cannot hand a micro-batch over: {described(error)}"
            return WorkerLostError(said, worker.owed[0][1], HANDING_OVER, "narrow")
        if code < 0:
            name = signal.Signals(-code).name if -code in {*signal.Signals} else "a signal"
            said = f"was killed by {name}{_place(worker.stacks)}"
        else:
            said = f"ended with exit code {code}"
        if code in (-signal.SIGTERM, -signal.SIGINT):
            return self._lost(worker, said, "asked")
        if code == -_SIGKILL and oom_kills() > self._oom_kills:
            return self._lost(worker, f"{said}, as memory ran out", "memory")
        lost = self._lost(worker, said, "died" if worker.ready else "start")
        # The kernel's word for a page of shared memory that there is no room for.
        if code == -_SIGBUS and lost.at in (COLLATING, HANDING_OVER):
            lost.why = "narrow"
        return lost

    def _lost(self, worker: _Worker, said: str, why: Why) -> WorkerLostError:
        at, number = worker.cell
        owed = dict(worker.owed)
        request = owed.get(number, worker.owed[0][1])
        return WorkerLostError(said, request, at if number in owed else IDLE, why)


def _place(stacks: Path) -> str:
    """` (file.py:12)`: the Python line that a crash in native code came from, if it was noted."""
    try:
        _, _, mine = stacks.read_text(errors="replace").partition("Current thread")
    except OSError:
        return ""
    found = re.search(r'File "(.+)", line (\d+)', mine)
    return f" ({found[1]}:{found[2]})" if found else ""


def _work(
    number: int, count: int, source: Source, requests: Connection, results: Connection,
    cell: MutableSequence[int], stacks: Path, not_mine: list[Connection], by_pipe: bool,
) -> None:  # fmt: skip
    """What a worker does until its pipe ends."""
    for each in not_mine:
        each.close()
    leave_to_parent(number)
    usual_path()
    torch.set_num_threads(1)
    if by_pipe:
        pipes.share_nothing()
    # multiprocessing's thread that hands files over would print what the parent sees and tells.
    sys.excepthook = lambda *_: None
    torch_worker._worker_info = torch_worker.WorkerInfo(  # what get_worker_info() shall say
        id=number, num_workers=count, seed=source.seed, dataset=source.carried.value[0]
    )
    try:
        with open(stacks, "w") as file:
            faulthandler.enable(file)
            if hasattr(signal, "SIGUSR1"):
                faulthandler.register(signal.SIGUSR1, file)
            results.send(None)
            while True:
                which, request = requests.recv()
                cell[1] = which
                made = source.made(request, cell)
                cell[0] = HANDING_OVER
                _hand_over(results, made, by_pipe)
                cell[0] = IDLE
    except (EOFError, OSError):  # the run has ended
        with suppress(OSError):  # and cleared `stacks` away, but where it was killed
            stacks.unlink()
            stacks.parent.rmdir()


def _hand_over(results: Connection, made: Made, by_pipe: bool) -> None:
    try:
        if by_pipe:
            results.send_bytes(pipes.packed(made))
        else:
            results.send(made)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        lost = not isinstance(error, CANNOT_TRAVEL)
        fault = Fault("a micro-batch cannot be handed over", described(error), lost=lost)
        results.send(Made(None, 0, fault=fault))
