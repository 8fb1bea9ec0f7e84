"""One job at a time beside the training, in a thread: what came of it is asked for later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Writer(Generic[Result]):
    """A job under way, if any. What it raises is raised where its result is asked for.

    The thread does not hold up the end of the process: a run that is told twice to stop leaves
    what was half written to the next one, as one that is killed does.
    """

    def __init__(self) -> None:
        self._busy = False
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self._errors: list[BaseException] = []

    @property
    def done(self) -> bool:
        """Whether there is a result to take, at once."""
        return self._busy and not (self._thread is not None and self._thread.is_alive())

    def begin(self, job: Callable[[], Result]) -> None:
        """Start a job; the one before must have been taken. Without a thread to be had, do it."""
        assert not self._busy, "one job at a time"
        self._busy = True
        thread = threading.Thread(
            target=self._run, args=(job,), name="autotrain-checkpoint", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._run(job)
        else:
            self._thread = thread

    def wait(self) -> None:
        """Until no job is under way."""
        if self._thread is not None:
            self._thread.join()

    def take(self) -> Result:
        """Wait for the job and return what it did. Raises what it raised."""
        assert self._busy, "no job was begun"
        self.wait()
        self._busy, self._thread = False, None
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def _run(self, job: Callable[[], Result]) -> None:
        try:
            self._results.append(job())
        except BaseException as error:
            self._errors.append(error)
