"""How long loading a sample takes, and whether a core computes meanwhile or waits."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_TIMING_SECONDS = 0.5
_DELAYS = Path("/proc/thread-self/schedstat")


class Loading(NamedTuple):
    """Seconds to load one sample, and of them those in which it had no use for a core."""

    seconds: float
    waiting: float


def timed(dataset: Any, indices: Sequence[int]) -> Loading:
    """The median over samples of each one's fastest of up to three loads.

    They have been loaded once before: a dataset that keeps what it has loaded pays once. The
    fastest, because a busy moment of the machine would otherwise decide about workers.
    """
    fastest = [Loading(math.inf, 0.0)] * len(indices)
    begun = time.perf_counter()
    for _ in range(3):
        for place, index in enumerate(indices):
            delayed, computed, started = _delayed(), _computed(), time.perf_counter()
            dataset[index]
            took = time.perf_counter() - started
            busy = _computed() - computed
            waited = max(took - busy - (_delayed() - delayed), 0.0)
            fastest[place] = min(fastest[place], Loading(took, waited))
        if time.perf_counter() - begun > _TIMING_SECONDS:
            break
    each = statistics.median(loading.seconds for loading in fastest)
    return Loading(each, min(statistics.median(loading.waiting for loading in fastest), each))


def _delayed() -> float:
    """Seconds for which this thread had work and no core, as others had them all.

    As Linux tells it; elsewhere 0, and a busy machine looks like a slow disk.
    """
    try:
        return int(_DELAYS.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _computed() -> float:
    """Seconds of cores that this process took, and programs that it started and that ended."""
    spent = time.process_time()
    if sys.platform != "win32":  # there, programs that it started count as waiting
        import resource

        others = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent += others.ru_utime + others.ru_stime
    return spent
