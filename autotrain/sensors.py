"""What else a log point tells: how busy and how hot the GPU is, and what other programs take."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, TypeVar

from autotrain.nvml import Load, load_reader

# A reading serves for a second (NVML's own figures are of the last 1/6 to 1 s), and longer where
# reading is slow: never more than a thousandth of the time goes into it.
FRESH_SECONDS, COST = 1.0, 1000
# From here on others make what is timed beside them too slow, more threads above all.
DISTURBING = 0.15
T = TypeVar("T")


class Reading(NamedTuple):
    """Fields of a Step event, each None where nobody tells.

    `others_cpu`: the share of the time of the cores that this process may use which other
    programs took, since the reading before.
    """

    gpu_utilisation: float | None = None
    gpu_celsius: float | None = None
    gpu_watts: float | None = None
    gpu_slowed: str | None = None
    others_cpu: float | None = None


class Sensors:
    """Reads them, quickly and without ever raising. `uuid`: of the NVIDIA GPU that trains, as
    torch tells it, so that CUDA_VISIBLE_DEVICES is respected. `cores`: what this process may use.
    """

    def __init__(self, uuid: str | None = None, cores: int | None = None) -> None:
        self._gpu = load_reader(uuid) if uuid else None
        self._others = Others() if Others.knowable(cores) else None
        self._last, self._fresh_until = Reading(), 0.0

    def read(self) -> Reading:
        """The newest reading, at most about a second old."""
        begun = perf_counter()
        if begun >= self._fresh_until:
            load = (_quietly(self._gpu) if self._gpu else None) or Load()
            others = _quietly(self._others.share) if self._others else None
            self._last = Reading(load.utilisation, load.celsius, load.watts, load.slowed, others)
            now = perf_counter()
            self._fresh_until = now + max(FRESH_SECONDS, COST * (now - begun))
        return self._last


def _quietly(ask: Callable[[], T]) -> T | None:
    """A figure to look at must not end a run, whatever a driver or a system does."""
    try:
        return ask()
    except Exception:
        return None


class Others:
    """How much of the cores other programs use. Verify with `top`: all but this one's and its
    children's, over 100 % a core. `own`: seconds used, of each process that does not count.
    """

    def __init__(self, own: Callable[[], dict[int, float]] | None = None) -> None:
        self._cores, self._own = _affinity(), own or _with_workers
        self._before = self._now()

    @staticmethod
    def knowable(cores: int | None) -> bool:
        """Not where a quota gives this process a part of a machine that others use as well, nor
        where it is one of several ranks."""
        several = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) > 1
        return not several and (cores is None or cores >= len(_affinity()))

    def share(self) -> float | None:
        """Since it was last asked: 0 to 1. None: too short ago to tell."""
        (total0, idle0, used0), now = self._before, self._now()
        total, idle = now[0] - total0, now[1] - idle0
        own = sum(used - used0.get(pid, 0.0) for pid, used in now[2].items())
        if total < 0.1 * len(self._cores):  # the system counts in hundredths of a second
            return None
        self._before = now
        return min(max((total - idle - own) / total, 0.0), 1.0)

    def _now(self) -> tuple[float, float, dict[int, float]]:
        """Seconds of all the cores, of them idle, and those of this process and its workers."""
        import psutil

        total = idle = 0.0
        everyone = psutil.cpu_times(percpu=True)
        for core in self._cores:
            times = everyone[core]._asdict()
            # A guest's time is in user's already.
            total += sum(v for name, v in times.items() if not name.startswith("guest"))
            idle += times["idle"] + times.get("iowait", 0.0)
        return total, idle, self._own()


def _affinity() -> list[int]:
    """The cores this process may run on, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [*range(os.cpu_count() or 1)]


def _with_workers() -> dict[int, float]:
    workers = [child.pid for child in multiprocessing.active_children() if child.pid]
    return {pid: _used(pid) for pid in (os.getpid(), *workers)}


def family() -> dict[int, float]:
    """Seconds used by this process, all that it started and has ended, and all that runs on."""
    import psutil

    own = psutil.Process()
    times = own.cpu_times()
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    running = {child.pid: _used(child.pid) for child in own.children(recursive=True)}
    return {own.pid: float(times.user + times.system + ended), **running}


class Quiet:
    """Whether the cores were ours while something was timed.

    With AUTOTRAIN_BUSY=ignore they always were: for those who cannot have the machine alone.
    """

    def __init__(self) -> None:
        ignore = os.environ.get("AUTOTRAIN_BUSY") == "ignore"
        self._others = None if ignore or not Others.knowable(None) else Others(family)

    def disturbed(self) -> float | None:
        """The share of the cores that other programs took since this was made; None: too little
        to matter, or nobody can tell."""
        taken = _quietly(self._others.share) if self._others else None
        return taken if taken is not None and taken > DISTURBING else None


def _used(pid: int) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
