"""Copies a run's checkpoints to a place elsewhere, in a thread of its own.

Nobody's checkpoints are lost for those of another: a run writes into a folder that is its own, and
one whose folder somebody goes on with takes another.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.events import Event, Saved, Warned
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import MANIFEST
from autotrain.run.keeping.place import Place, said
from autotrain.run.signals import Stop

# For the last copies a run that was told to end (SIGTERM) waits so long, one that ends by itself
# an hour; after a while it says so.
LAST_SECONDS, MOST_SECONDS, SILENT_SECONDS = 20.0, 3600.0, 5.0
_LOOK_SECONDS = 0.05
# In a run's folder: the marks of those folders of mirrors that are its own.
MARKS = "mirror.json"


class Copier:
    """Copies what is offered, in a thread of its own; of several that wait, the newest alone.

    `mine`: the marks of the folders there that are the run's. Each process has a mark of its own,
    so that of two that go on with one run the earlier sees that its folder is taken over.
    """

    def __init__(self, root: Place, directory: Path, keep: int, mine: list[str]) -> None:
        self.root, self.directory, self.keep = root, directory, keep
        self._mark, self._mine = uuid.uuid4().hex, mine
        self._place: Place | None = None
        self._told: list[Event] = []
        self._plan = b""  # as it is there
        self._last = b""  # the manifest of what was copied last
        self._beside = ""  # the folder that is not the first choice, and was told
        self._step = 0  # whose copy is under way
        self._reached = -1  # the step up to which the copies there are of the way that the run goes
        self._waiting: int | None = None
        self._ends = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="autotrain-mirror", daemon=True)

    def begin(self) -> None:
        """For a new run. Raises AutotrainError where nothing can be written there."""
        self.root.make()
        try:
            self._place = self._chosen()
        except Exception as error:
            raise AutotrainError(f"{self.root.url}: {said(error)}") from None

    def go_on(self, step: int) -> None:
        """A run goes on from there, whose copy may not have come to its end."""
        self._reached = step
        self.offer(step)

    def offer(self, step: int) -> None:
        """A checkpoint that is on disk."""
        with self._changed:
            self._waiting = step
            self._changed.notify()
        if self._thread.ident is None:
            self._thread.start()

    def news(self) -> list[Event]:
        """What became of copies since this was asked last."""
        with self._changed:
            told, self._told = self._told, []
        return told

    def close(self) -> None:
        """What is under way comes to its end, if the process does not before; no more begins."""
        with self._changed:
            self._waiting, self._ends = None, True
            self._changed.notify()

    def end(self, stop: Stop) -> Iterator[Event]:
        """Wait for the last copies: not for ever, and no longer once a person says stop."""
        with self._changed:
            self._ends = True
            last = self._step if self._waiting is None else self._waiting
            self._changed.notify()
        before, begun, told = stop.reason, perf_counter(), False
        most = LAST_SECONDS if before == "terminated" else MOST_SECONDS
        while self._thread.is_alive() and stop.reason == before:
            waited = perf_counter() - begun
            if waited > most:
                break
            if waited > SILENT_SECONDS and not told:
                told = True
                message = f"waiting for the copy of step {last} to {self.root.url}"
                yield _warned(last, message, "^C or SIGTERM ends without it")
            self._thread.join(_LOOK_SECONDS)
        if self._thread.is_alive():
            self.close()
            message = f"step {last} was not mirrored to {self.root.url}: the run ended first"
            yield _warned(last, message, "it is kept here; --resume copies it")
        yield from self.news()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ends)
                step, self._waiting = self._waiting, None
            if step is None:
                return
            best = best_of(checkpoint.folder(self.directory, step))
            self._copy(step, best, newest=True)
            if best is not None and best != step and self._waiting is None:
                self._copy(best, best, newest=False)  # it may have been passed over

    def _copy(self, step: int, best: int | None, *, newest: bool) -> None:
        """Have a checkpoint there, and tell it, where it was not. One that was removed here
        meanwhile is no loss: a newer one will be offered."""
        self._step, begun = step, perf_counter()
        path = checkpoint.folder(self.directory, step)
        where = f"{self.root.url}/checkpoints/{path.name}"
        try:
            manifest = (path / MANIFEST).read_bytes()
            if manifest == self._last:
                return
            place = self._claimed()
            where = f"{place.url}/checkpoints/{path.name}"
            if newest:  # what is there beyond is of another way, which was left
                place.set_aside(each for each in place.steps() if each > self._reached)
            seen, there = place.folders(), place.steps()
            copied = step not in there or place.manifest(step) != manifest
            size = place.put(path) if copied else 0
            if newest:
                self._reached = step
                self._tidy(place, {*seen}, {step, *there}, best)
                self._last = manifest
        except Exception as error:
            if path.is_dir():
                message = f"step {step} was not mirrored to {where}: {said(error)}"
                self.tell(_warned(step, message, "the next checkpoint is tried again"))
            return
        if copied:
            took = perf_counter() - begun
            self.tell(Saved(
                step=step, epoch=0, path=where, label="mirrored", bytes=size, seconds=took
            ))  # fmt: skip

    def _tidy(self, place: Place, seen: set[int], there: set[int], best: int | None) -> None:
        """The plan as it runs; of what was `seen` there before, only what a run keeps.

        Whoever takes the folder over at this moment brings what was not.
        """
        if place.owner() != self._mark:
            return
        plan = self.directory / "plan.toml"
        if plan.is_file() and (raw := plan.read_bytes()) != self._plan:
            place.put_plan(raw)
            self._plan = raw
        kept = {*sorted(there)[-self.keep :], *checkpoint.steps(self.directory), best}
        place.drop(seen - kept)

    def _claimed(self) -> Place:
        """The run's own folder, marked as such; another one where somebody took that over."""
        if self._place is not None and self._place.owner() == self._mark:
            return self._place
        place = self._chosen()
        remember(self.directory, [self._mark, *self._mine])  # a kill behind this loses no folder
        place.own(self._mark)
        remember(self.directory, [self._mark])
        self._place, self._mine = place, [self._mark]
        return place

    def _chosen(self) -> Place:
        """The last folder there that is the run's, or a free one: told, where that is another."""
        runs = self.root.runs()
        for place in reversed(runs):
            if place.owner() in self._mine:
                return place
        last = runs[-1]
        if not last.owner() and not last.steps():
            return last
        place = self.root.another()
        if place.url != self._beside:
            self._beside = place.url
            message = f"{last.url} is another run's, which stays: copies go to {place.url}"
            self.tell(_warned(0, message, f"--resume --from {last.url} goes on with that one"))
        return place

    def tell(self, event: Event) -> None:
        """Have it among the news."""
        with self._changed:
            self._told.append(event)


def best_of(path: Path) -> int | None:
    """The step that was the best when that checkpoint was made."""
    try:
        best = files.read_json(path / "state.json")["run"]["best_step"]
    except (KeyError, TypeError):
        return None
    return best if isinstance(best, int) and 0 <= best < 10**18 else None


def marks(directory: Path) -> list[str]:
    """The marks of those folders of mirrors that a run may write to."""
    found = files.read_json(directory / MARKS)
    return [str(each) for each in found] if isinstance(found, list) else []


def remember(directory: Path, those: list[str]) -> None:
    """Keep them with the run. Raises AutotrainError."""
    files.write_atomic(directory / MARKS, json.dumps(those))


def _warned(step: int, message: str, advice: str = "") -> Warned:
    return Warned(step=step, epoch=0, message=message, advice=advice)
