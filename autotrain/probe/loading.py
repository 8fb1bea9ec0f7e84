"""How long loading a sample takes, and whether a core computes meanwhile or waits."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

_TIMING_SECONDS = 0.5


class Loading(NamedTuple):
    """Seconds to load one sample, and of them those in which no core computed."""

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
            started, computed = time.perf_counter(), _computed()
            dataset[index]
            took = time.perf_counter() - started
            waited = max(took - (_computed() - computed), 0.0)
            fastest[place] = min(fastest[place], Loading(took, waited))
        if time.perf_counter() - begun > _TIMING_SECONDS:
            break
    each = statistics.median(loading.seconds for loading in fastest)
    return Loading(each, min(statistics.median(loading.waiting for loading in fastest), each))


def _computed() -> float:
    """Seconds of cores that this process took, and programs that it started and that ended."""
    spent = time.process_time()
    if sys.platform != "win32":  # there, programs that it started count as waiting
        import resource

        others = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent += others.ru_utime + others.ru_stime
    return spent
