"""Hands the loop its micro-batches in the order in which it takes them, on the device.

One set of workers serves the whole run: the itinerary they follow holds the windows of training
steps, and the validation set where an evaluation is due. So the end of an epoch makes nobody
wait, and no second set of workers sits in memory for the validation.

What goes wrong on the way is put right here where it can be: a bad sample is left out; a worker
that died or hangs is started again from the micro-batch that it owed, so that no sample is lost
or read twice, and a sample that does it twice is put aside. What that costs is in `news`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch

from autotrain.errors import AutotrainError
from autotrain.events import Event, Healed, Warned
from autotrain.run.loading import pipes
from autotrain.run.loading.aside import Aside
from autotrain.run.loading.itinerary import Itinerary, Request
from autotrain.run.loading.kept import Kept
from autotrain.run.loading.lost import NARROW, LoaderDiedError, TooNarrowError, WorkerLostError
from autotrain.run.loading.mover import mover
from autotrain.run.loading.shelf import Shelves
from autotrain.run.loading.source import COLLATING, HANDING_OVER, BadSample, Made, Source, described
from autotrain.run.loading.watchdog import Watchdog
from autotrain.run.loading.workers import CANNOT_TRAVEL, Workers
from autotrain.schema import LoaderSection

_log = logging.getLogger(__name__)

# In place of a micro-batch of which no sample could be used.
NOTHING = object()
# So often workers are started again in one place, before it is tried with fewer.
TRIES = 3
NOBODY = (False, -1)
# Samples that are kept in memory take no more of what is free when the run begins.
KEPT_SHARE = 0.2


class Feed:
    """Hands out the itinerary's micro-batches, on the device. `waited` adds up seconds.

    `folder` is where the stacks of a loader that hangs are written.
    """

    def __init__(
        self, source: Source, itinerary: Itinerary, section: LoaderSection, device: torch.device,
        aside: Aside, folder: Path,
    ) -> None:  # fmt: skip
        self.source, self.itinerary, self.section = source, itinerary, section
        self.aside, self.folder = aside, folder
        self.waited = 0.0
        self.news: list[Event] = []
        self._device = device
        self.moved = mover(device, pin=section.pin_memory)
        self._shelves: Shelves | None = None
        self._requests: Iterator[Request] | None = None
        self._workers: Workers | None = None
        self._by_pipe = False
        self._watchdog: Watchdog | None = None
        self._at = [0, 0]
        # How often workers were lost since one brought something, and at which sample last: what
        # comes in between may have been made before it.
        self._tries, self._suspect = 0, NOBODY
        self._told_single = False

    def take(self, epoch: int | None) -> Any:
        """The next micro-batch, which is of that epoch (counted from 0; None: validation).

        NOTHING where none of its samples could be used. Raises AutotrainError with the sample
        or the worker named.
        """
        begun = perf_counter()
        if self._requests is None:
            self._requests = self._begin()
        here = not self.section.workers or self._all_kept()
        request, made = self._made_here() if here else self._from_workers()
        self.waited += perf_counter() - begun
        assert request.epoch == epoch, "the loop left the itinerary"
        if made.left:
            self.aside.used[epoch is None] = True
        if made.bad or made.fault is not None:
            self._note(request, made)
        if made.left < 2 and self._too_few(request, made.left):
            return NOTHING
        batch = self.moved(made.batch)
        if self._shelves is not None and (why := self._shelves.keep(request, made, batch)):
            epoch = self.itinerary.cadence.epoch(request.step)
            self.news.append(Warned(step=request.step, epoch=epoch, message=why))
        return batch

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()
        if self._watchdog is not None:
            self._watchdog.close()
        self._requests = self._workers = self._watchdog = None

    def restart(self, itinerary: Itinerary) -> None:
        """Go on along another itinerary, with new workers."""
        self.close()
        self.itinerary = itinerary

    def _begin(self) -> Iterator[Request]:
        self._tries, seconds = 0, self.section.timeout_seconds
        if self.section.keep == "ram" and self.source.kept is None:
            room = int(KEPT_SHARE * psutil.virtual_memory().available)
            self.source.kept = Kept(room // max(self.section.workers, 1))
        if self.section.keep == "device" and self._shelves is None:
            free = KEPT_SHARE * psutil.virtual_memory().available
            most = free if self._device.type == "cpu" else math.inf
            self._shelves = Shelves(self.source, self.aside.counts, most, self.moved)
        if seconds is not None and not self.section.workers:
            self._watchdog = Watchdog(seconds, self._at, self._tell_stuck)
        return iter(self.itinerary)

    def _all_kept(self) -> bool:
        """Whether nothing is to be read any more. Workers that did until now end."""
        if self._shelves is None or not self._shelves.whole:
            return False
        if self._workers is not None:
            assert self._requests is not None
            self._requests = chain(self._workers.owed(), self._requests)
            self._workers.close()
            self._workers = None
        return True

    def _made_here(self) -> tuple[Request, Made]:
        assert self._requests is not None
        self._here = request = next(self._requests)
        if self._shelves is not None and (rows := self._shelves.rows(request)) is not None:
            return request, Made(rows, len(request.indices))
        if self._watchdog is None:
            return request, self.source.made(request, self._at)
        self._watchdog.begun()
        try:
            return request, self.source.made(request, self._at)
        finally:
            self._watchdog.ended()

    def _tell_stuck(self, stack: str) -> None:
        """Nothing more can be done in this process, and the loop's events wait with it."""
        step, doing = self._here.step, self._doing(self._here, self._at[0])
        message = (
            f"stuck for {self.section.timeout_seconds:g} s, {doing} "
            f"(the stack is in {self._write(step, stack)})"
        )
        advice = "with loader.workers = 1 a reader that hangs is started again"
        _log.warning("%s; %s", message, advice)
        epoch = self.itinerary.cadence.epoch(step)
        self.news.append(Warned(step=step, epoch=epoch, message=message, advice=advice))

    def _from_workers(self) -> tuple[Request, Made]:
        while True:
            begun = perf_counter()
            try:
                if self._workers is None:
                    self._workers = self._started()
                request, made = self._workers.take()
                self._tries, (valid, at) = 0, self._suspect
                if at >= 0 and valid == (request.epoch is None) and at in request.indices:
                    self._suspect = NOBODY
                return request, made
            except WorkerLostError as lost:
                self._mend(lost, begun)

    def _started(self) -> Workers:
        assert self._requests is not None
        try:
            return Workers(self.source, self._requests, self.section, by_pipe=self._by_pipe)
        except (OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not pipes.too_narrow(error):
                raise
            raise TooNarrowError(f"loader workers cannot start: {described(error)}") from error
        except (*CANNOT_TRAVEL, ValueError) as error:
            raise AutotrainError(
                f"loader workers cannot start by {self.section.start_method}: {error}",
                "define datasets and collate at the top level of the task file, or set"
                " loader.workers = 0",
            ) from error

    def _mend(self, lost: WorkerLostError, begun: float) -> None:
        """New workers go on with what the old ones owed.

        Raises LoaderDiedError where that does not help, or where somebody ended the worker.
        """
        workers = self._workers
        assert workers is not None
        assert self._requests is not None
        said = f"a loader worker {lost.said}, {self._doing(lost.request, lost.at)}"
        if lost.why == "hangs":
            said += f" (stacks in {self._write(lost.request.step, workers.dump_stacks())})"
        workers.kill()
        self._workers, self._requests = None, chain(workers.owed(), self._requests)
        if lost.why == "narrow":
            self._take_pipes(lost, begun)
            return
        self._tries += 1
        if lost.why == "start" and self._tries > 1:
            raise AutotrainError(
                f"loader workers do not start: each {lost.said}",
                "what they printed may say why; or loader.start_method = fork, loader.workers = 0",
            )
        # For want of memory so many workers die again, whatever they read.
        starved = lost.why == "memory"
        tries = int(self.section.workers == 1) if starved else TRIES
        if lost.why == "asked" or self._tries > tries:
            raise LoaderDiedError.of(said, repeated=lost.why != "asked")
        sample = NOBODY if starved else (lost.request.epoch is None, lost.at)
        if sample[1] >= 0 and sample == self._suspect and sample not in self.source.shunned:
            self._tries, self._suspect = 0, NOBODY
            seconds = perf_counter() - begun
            bad = BadSample(*sample, f"the worker that reads it {lost.said}", seconds, fatal=True)
            self._put_aside(lost.request, [bad])
            return
        self._suspect = sample
        cure = "new ones go on with the micro-batch that it owed"
        self._tell(lost.request, said, cure, perf_counter() - begun)

    def _take_pipes(self, lost: WorkerLostError, begun: float) -> None:
        """New workers do without shared memory. Raises TooNarrowError where they did already."""
        if self._by_pipe:
            raise TooNarrowError(f"a loader worker: {lost.said}")
        self._by_pipe = True
        cure = f"new ones send micro-batches through pipes, which is slower; {NARROW}"
        self._tell(lost.request, f"a loader worker: {lost.said}", cure, perf_counter() - begun)

    def _put_aside(self, request: Request, bad: Sequence[BadSample]) -> None:
        """Tell of those that are new. Raises AutotrainError where they are too many."""
        for each in self.aside.note(bad):
            name = self.source.named(each.index, valid=each.valid)
            self._tell(request, f"{name}: {each.error}", self.aside.cure(each), each.seconds)

    def _tell(self, request: Request, fault: str, cure: str, seconds: float) -> None:
        step, fault = request.step, fault.strip().partition("\n")[0]
        epoch = self.itinerary.cadence.epoch(step)
        healed = Healed(step=step, epoch=epoch, fault=fault, cure=cure, cost_seconds=seconds)
        self.news.append(healed)

    def _too_few(self, request: Request, left: int) -> bool:
        """Whether nothing is left of a micro-batch, or one sample, which BatchNorm refuses."""
        if left == 0 or request.epoch is None or len(request.indices) == 1:
            return left == 0
        if not self.itinerary.order.no_single:
            return False
        if not self._told_single:
            self._told_single = True
            message = (
                "a micro-batch of which one sample is left is passed over: BatchNorm needs two"
            )
            epoch = self.itinerary.cadence.epoch(request.step)
            self.news.append(Warned(step=request.step, epoch=epoch, message=message))
        return True

    def _doing(self, request: Request, at: int) -> str:
        if at >= 0:
            return f"reading {self.source.named(at, valid=request.epoch is None)}"
        if at == COLLATING:
            return f"collating {len(request.indices)} samples"
        return "handing a micro-batch over" if at == HANDING_OVER else "between micro-batches"

    def _write(self, step: int, stacks: str) -> Path:
        path = self.folder / f"stacks-{step}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a pipe would wait for a reader
        path.write_text(stacks, encoding="utf-8")
        return path

    def _note(self, request: Request, made: Made) -> None:
        fault = made.fault
        if fault is None:
            self._put_aside(request, made.bad)
        elif fault.memory:
            raise MemoryError(f"{fault.what}: {fault.error}")
        elif fault.lost:
            raise TooNarrowError(f"{fault.what}: {fault.error}")
        else:
            message = f"{fault.what}: {fault.error}"
            raise AutotrainError(message, "mend or remove it, then --resume")
