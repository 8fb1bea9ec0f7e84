"""Which checkpoints there are: saved without ever ending a run, pointed at, pruned."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from autotrain import files
from autotrain.device import out_of_memory
from autotrain.errors import AutotrainError
from autotrain.events import Event, Saved, Warned
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import POINTERS, Snapshot
from autotrain.run.keeping.copier import Copier
from autotrain.run.keeping.tensors import UnkeptError
from autotrain.run.keeping.writer import Writer
from autotrain.run.signals import Stop
from autotrain.units import bytes_text

OVERHEAD_BYTES = 1 << 20  # state.json, the headers and the folder itself, beside the tensors
# After a save that failed, others are tried after so many steps, each time twice as many; a disk
# that has no room for one is asked again, not written to.
FIRST_RETRY, LAST_RETRY = 1, 1024


class Kept(NamedTuple):
    """What became of a save that `needed` so many bytes, and the steps that are on disk now.

    `events`: first whether it is on disk.
    """

    events: tuple[Event, ...]
    good: frozenset[int]
    needed: int


class Asked(NamedTuple):
    """A save that is wanted: of a step, for the reason that its `label` names."""

    label: str
    epoch: int
    step: int


@dataclass
class Retry:
    """When a save that failed is tried again: from a step on, with room for so many bytes."""

    at: int
    gap: int
    bytes: int


def _here(make: Callable[[], Kept]) -> Kept:
    return make()


class Keeper:
    """A run's checkpoints. `good` are the steps this process wrote or verified itself.

    `background`: they are written in a thread while training goes on, from a copy in RAM.
    """

    def __init__(self, directory: Path, keep: int, *, background: bool = False) -> None:
        self.directory = directory
        self.keep = keep
        self.good: frozenset[int] = frozenset()
        self.why = ""  # what became of the last save that failed
        # Of a process that leaves the writing to another: what to do in its place.
        self.idle: Callable[[], None] | None = None
        # Where several make a snapshot together: has rank 0 alone do something, and tell the rest.
        self.on_first: Callable[[Callable[[], Kept]], Kept] = _here
        self.background = background
        self.alone = True  # no other process waits for what this one does
        self.retry: Retry | None = None
        self.lost_best: int | None = None  # the step of a best one that is not on disk
        self.mirror: Copier | None = None
        self._writer: Writer[Kept] = Writer()
        self._writing: Asked | None = None

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint known to be good."""
        return checkpoint.folder(self.directory, max(self.good)) if self.good else None

    def __enter__(self) -> Keeper:
        """Within, checkpoints may be written in the background."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The save under way comes to its end, unless a person wants all to end at once."""
        if kind is not KeyboardInterrupt:
            self._writer.wait()
        if self.mirror is not None:
            self.mirror.close()

    def has(self, step: int) -> bool:
        """Whether the checkpoint of a step is on disk, or being written."""
        return step in self.good or (self._writing is not None and self._writing.step == step)

    def due(self, step: int) -> bool:
        """Whether a save that failed should be tried again after this step."""
        if (retry := self.retry) is None or step < retry.at or self._writing is not None:
            return False
        retry.at, retry.gap = step + retry.gap, min(2 * retry.gap, LAST_RETRY)
        try:
            return self._room()[0] >= retry.bytes
        except OSError:
            return False

    def save(
        self, label: str, epoch: int, step: int, take: Callable[[], Snapshot]
    ) -> Iterator[Event]:
        """Keep this step and point `latest`, and the pointer that `label` names, at it.

        Returns when that is on disk. What is already there is not written again. A save that
        fails is a Warned event, for want of memory too; what else `take` raises is raised.
        """
        yield from self.settle()
        if self.idle is not None:
            self.idle()
            self.good |= {step}
            return
        begun, asked = perf_counter(), Asked(label, epoch, step)
        made = None if step in self.good else self._copied(asked, take)
        if not isinstance(made, Kept):
            made = self.on_first(partial(self._kept, asked, made, begun, None))
        yield from self._took(made, asked)

    def begin(
        self, label: str, epoch: int, step: int, take: Callable[[], Snapshot]
    ) -> Iterator[Event]:
        """As `save`, but only the copy is waited for where they are written in the background.

        What became of it is told by `news` or `settle`.
        """
        yield from self.settle()
        if not (self.background and self.alone) or step in self.good:
            yield from self.save(label, epoch, step, take)
            return
        begun, asked = perf_counter(), Asked(label, epoch, step)
        made = self._copied(asked, take)
        if isinstance(made, Kept):
            yield from self._took(made, asked)
        else:
            self._writing, held = asked, perf_counter() - begun
            self._writer.begin(partial(self._kept, asked, made, begun, held))

    def _copied(self, asked: Asked, take: Callable[[], Snapshot]) -> Snapshot | Kept:
        """What is to be written; where memory has no room for it, or the model keeps by now what
        no checkpoint can hold, a save that failed.
        """
        try:
            return take()
        except UnkeptError as error:
            self.why, advice = error.message, error.hint
        except Exception as error:
            if not out_of_memory(error):
                raise
            said = str(error).partition("\n")[0] or "none is left"
            self.why = f"no memory for a copy of it: {said}"
            advice = "free some memory; it is tried again"
        return Kept((self._unsaved(asked, advice),), self.good, 0)

    def _unsaved(self, asked: Asked, advice: str) -> Warned:
        message = f"checkpoint not saved: {self.why}"
        if asked.label == "best":
            message += "; of what follows, the best that is saved counts as best"
        return Warned(step=asked.step, epoch=asked.epoch, message=message, advice=advice)

    def news(self) -> Iterator[Event]:
        """What became of a save that has ended meanwhile."""
        if self._writer.done:
            yield from self.settle()
        if self.mirror is not None:
            yield from self.mirror.news()

    def end(self, stop: Stop) -> Iterator[Event]:
        """The last copies are made, or given up where the run was told to stop."""
        if self.mirror is not None:
            yield from self.mirror.end(stop)

    def settle(self) -> Iterator[Event]:
        """Wait for the save under way, if there is one, and tell what became of it."""
        asked, self._writing = self._writing, None
        if asked is not None:
            yield from self._took(self._writer.take(), asked)

    def _took(self, kept: Kept, asked: Asked) -> tuple[Event, ...]:
        """Go by what a save did, and try again soon where it failed."""
        self.good = kept.good
        if isinstance(kept.events[0], Saved):
            self.retry = None
            if self.mirror is not None:
                self.mirror.offer(asked.step)
            return kept.events
        if asked.label == "best" and self.alone:
            self.lost_best = asked.step
        if self.retry is None and self.alone:
            self.retry = Retry(asked.step + FIRST_RETRY, 2 * FIRST_RETRY, kept.needed)
        return kept.events

    def _kept(
        self, asked: Asked, snapshot: Snapshot | None, begun: float, held: float | None
    ) -> Kept:
        """Write, point and prune; in a thread of its own where the loop was `held` up for less."""
        label, epoch, step = asked
        needed = snapshot.bytes + OVERHEAD_BYTES if snapshot else 0
        good = set(self.good)
        try:
            if snapshot is not None:
                self._write(snapshot)
                good.add(step)
            for name in {"latest", label} & {*POINTERS}:
                self.point(name, step)
            path = checkpoint.folder(self.directory, step)
            size = sum(entry.stat().st_size for entry in path.iterdir())
        except (OSError, AutotrainError, MemoryError) as error:
            advice = "free some space; training goes on, and a save is tried again"
            self.why = self._why(error, needed, good)
            return Kept((self._unsaved(asked, advice),), frozenset(good), needed)
        seconds = perf_counter() - begun
        saved = Saved(
            step=step, epoch=epoch, path=str(path), label=label, bytes=size, seconds=seconds,
            held_seconds=seconds if held is None else held,
        )  # fmt: skip
        try:
            self._prune(good)
        except OSError as error:
            message = f"an older checkpoint could not be deleted: {error.strerror}"
            warned = Warned(step=step, epoch=epoch, message=message)
            return Kept((saved, warned), frozenset(good), needed)
        return Kept((saved,), frozenset(good), needed)

    def _write(self, snapshot: Snapshot) -> None:
        # Asking first spares a full disk the writing, and its owner the other files' space.
        if snapshot.bytes + OVERHEAD_BYTES > self._room()[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        checkpoint.save(self.directory, snapshot)

    def point(self, name: str, step: int) -> None:
        """Make a pointer name a step that is on disk. Raises AutotrainError where it cannot."""
        place = checkpoint.checkpoints(self.directory) / name
        files.write_atomic(place, checkpoint.folder(self.directory, step).name + "\n")

    def _prune(self, good: set[int]) -> None:
        """Drop all but the newest `keep` and what a pointer names; the newest good one stays."""
        known = checkpoint.steps(self.directory)
        kept = {*known[: self.keep], *pointed(self.directory).values(), max(good)}
        for step in known:
            if step not in kept:
                path = checkpoint.folder(self.directory, step)
                # Renamed first: a kill in between leaves rubbish by name, not a torn checkpoint.
                doomed = path.rename(path.with_name(f".{path.name}.gone"))
                shutil.rmtree(doomed, ignore_errors=True)
                good.discard(step)

    def _room(self) -> tuple[int, str]:
        return files.room(files.nearest_folder(checkpoint.checkpoints(self.directory)))

    def _why(self, error: Exception, needed: int, good: set[int]) -> str:
        said = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        said = said or "no memory left"
        try:
            free = self._room()[1]
        except OSError:
            free = "an unknown amount"
        kept = f"; {checkpoint.folder(self.directory, max(good)).name} is kept" if good else ""
        return f"{said}: needed {bytes_text(needed)}, free {free}{kept}"


def pointed(directory: Path) -> dict[str, int]:
    """Pointer name -> step, for each that names a folder there is."""
    found: dict[str, int] = {}
    for name in POINTERS:
        place = checkpoint.checkpoints(directory) / name
        try:
            with files.open_regular(place) as file:
                path = place.with_name(file.read(100).decode().strip())
        except (OSError, ValueError):
            continue
        step = checkpoint.step_of(path)
        if step is not None and path.is_dir():
            found[name] = step
    return found
