"""Which checkpoints there are: saved without ever ending a run, pointed at, pruned."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.events import Event, Saved, Warned
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.units import bytes_text

POINTERS = ("latest", "best", "interrupted", "emergency")
# state.json, the headers and the folder itself, beside the tensors.
OVERHEAD_BYTES = 1 << 20


# What became of a save, and the steps that are on disk now.
Kept = tuple[Event, set[int]]


def _here(make: Callable[[], Kept]) -> Kept:
    return make()


class Keeper:
    """A run's checkpoints. `good` are the steps this process wrote or verified itself."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self.good: set[int] = set()
        self.torn: set[int] = set()
        # Of a process that leaves the writing to another: what to do in its place.
        self.idle: Callable[[], None] | None = None
        # Where several make a snapshot together: has rank 0 alone do something, and tell the rest.
        self.on_first: Callable[[Callable[[], Kept]], Kept] = _here

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint known to be good."""
        return checkpoint.folder(self.directory, max(self.good)) if self.good else None

    def save(
        self, label: str, epoch: int, step: int, take: Callable[[], Snapshot]
    ) -> Iterator[Event]:
        """Keep this step and point `latest`, and the pointer that `label` names, at it.

        What is already on disk is not written again. A save that fails is a Warned event; what
        `take` raises is raised.
        """
        if self.idle is not None:
            self.idle()
            self.good.add(step)
            return
        begun = perf_counter()
        snapshot = None if step in self.good else take()
        event, self.good = self.on_first(lambda: self._kept(label, epoch, step, snapshot, begun))
        yield event

    def _kept(
        self, label: str, epoch: int, step: int, snapshot: Snapshot | None, begun: float
    ) -> Kept:
        needed = snapshot.bytes + OVERHEAD_BYTES if snapshot else 0
        try:
            if snapshot is not None:
                self._write(snapshot)
            for name in {"latest", label} & {*POINTERS}:
                self.point(name, step)
            self._prune()
        except (OSError, AutotrainError) as error:
            advice = "free some space; training goes on and the next save is tried as planned"
            message = f"checkpoint not saved: {self._why(error, needed)}"
            return Warned(step=step, epoch=epoch, message=message, advice=advice), self.good
        path = checkpoint.folder(self.directory, step)
        size = sum(entry.stat().st_size for entry in path.iterdir())
        seconds = perf_counter() - begun
        saved = Saved(
            step=step, epoch=epoch, path=str(path), label=label, bytes=size, seconds=seconds
        )
        return saved, self.good

    def _write(self, snapshot: Snapshot) -> None:
        # Asking first spares a full disk the writing, and its owner the other files' space.
        if snapshot.bytes + OVERHEAD_BYTES > self._free():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        checkpoint.save(self.directory, snapshot)
        self.good.add(snapshot.step)
        self.torn.discard(snapshot.step)

    def point(self, name: str, step: int) -> None:
        """Make a pointer name a step that is on disk. Raises AutotrainError where it cannot."""
        place = checkpoint.checkpoints(self.directory) / name
        files.write_atomic(place, checkpoint.folder(self.directory, step).name + "\n")

    def _prune(self) -> None:
        """Drop all but the newest `keep` and what a pointer names; the newest is verified."""
        known = [s for s in checkpoint.steps(self.directory) if s not in self.torn]
        kept = {*known[: self.keep], *pointed(self.directory).values(), max(self.good)}
        for step in checkpoint.steps(self.directory):
            if step not in kept:
                path = checkpoint.folder(self.directory, step)
                # Renamed first: a kill in between leaves rubbish by name, not a torn checkpoint.
                doomed = path.rename(path.with_name(f".{path.name}.gone"))
                shutil.rmtree(doomed, ignore_errors=True)
                self.good.discard(step)

    def _free(self) -> int:
        place = checkpoint.checkpoints(self.directory)
        return shutil.disk_usage(place if place.exists() else self.directory).free

    def _why(self, error: Exception, needed: int) -> str:
        said = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        try:
            free = bytes_text(self._free())
        except OSError:
            free = "an unknown amount"
        kept = f"; {self.newest.name} is kept" if self.newest else ""
        return f"{said}: needed {bytes_text(needed)}, free {free}{kept}"


def pointed(directory: Path) -> dict[str, int]:
    """Pointer name -> step, for each that names a folder there is."""
    found: dict[str, int] = {}
    for name in POINTERS:
        place = checkpoint.checkpoints(directory) / name
        try:
            path = place.with_name(place.read_text().strip())
        except (OSError, ValueError):
            continue
        step = checkpoint.step_of(path)
        if step is not None and path.is_dir():
            found[name] = step
    return found
