"""Loader workers that are lost: one of them, or so that fewer of them are the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from autotrain.errors import AutotrainError
from autotrain.run.loading.itinerary import Request

NARROW = "more room in /dev/shm (a container: --shm-size) or a higher `ulimit -n` spares that"


Why = Literal["died", "hangs", "asked", "start", "narrow", "memory"]
_KILLS = Path("/proc/vmstat")


def oom_kills() -> int:
    """Processes that the kernel has ended on this machine because memory ran out; 0 elsewhere."""
    try:
        words = _KILLS.read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError, IndexError):
        return 0


class WorkerLostError(Exception):
    """A worker died or hangs. `at`: an index of `request`'s samples, or COLLATING and so on.

    `why` is "asked" where somebody ended it, "start" where it never came to make anything,
    "memory" where the kernel ended it for want of that, "narrow" where files, threads or shared
    memory do not suffice to hand a micro-batch over.
    """

    def __init__(self, said: str, request: Request, at: int, why: Why) -> None:
        super().__init__(said)
        self.said, self.request, self.at, self.why = said, request, at, why


class LoaderDiedError(AutotrainError):
    """Workers are gone. `repeated`: as many new ones did not get on either."""

    repeated: bool = False

    @classmethod
    def of(cls, said: str, *, repeated: bool) -> LoaderDiedError:
        """With what happened, and the usual reason."""
        made = cls(
            f"the data loader failed: {said}",
            "a worker that is killed often lacked memory: fewer loader.workers, or more of it",
        )
        made.repeated = repeated
        return made


class TooNarrowError(LoaderDiedError):
    """There are not enough files, threads, processes or shared memory for so many workers.

    Nothing was killed: what a worker cannot do for want of them, this process may.
    """

    repeated = True

    def __init__(self, message: str, hint: str = "") -> None:
        advice = "raise `ulimit -n` and `ulimit -u` (in a container: --shm-size, --pids-limit)"
        super().__init__(message, hint or advice)
