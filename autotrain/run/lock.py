"""One run per directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from autotrain import files
from autotrain.errors import AutotrainError

# A loader worker that was being forked when its run was killed has the lock until it is at work.
ORPHAN_SECONDS = 2.0


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a run's directory, made where it is missing. Raises AutotrainError if it is taken.

    The lock is the system's own: it goes when the process does, however it goes.
    """
    try:
        files.make_folder(directory)
        lock = FileLock(directory / ".lock", timeout=ORPHAN_SECONDS)
        lock.acquire()
    except Timeout:
        raise AutotrainError(
            f"{directory}: another run is using it", "wait for it, or plan with another run.name"
        ) from None
    except OSError as error:
        raise AutotrainError(
            f"{directory}: {error.strerror or error}", "choose a folder you may write"
        ) from None
    try:
        yield
    finally:
        lock.release()
