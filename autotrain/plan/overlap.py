"""A micro-batch and the loading of the next one: after one another, or side by side in workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

# Seeding and collating one sample where no worker does it.
SAMPLE_SECONDS = 20e-6
# A copy of a sample that is kept in memory: 3 us of 64 numbers, 57 of a picture of 3 x 224 x 224.
COPY_SECONDS = 20e-6
# Handing a batch over from another process takes about this long, whatever is in it: a step of
# the starter took 3.7 ms with a worker and 1.2 ms without (docs/measurements/2026-11-20-cpu.md).
HANDOVER_SECONDS = 4e-3
# Of the model's time, what workers on its cores cost at most: between 0.5 and 1.0 was measured.
LATE = 0.75
# A worker takes memory and a process's start: it has to gain so much of the model's time, and each
# one more has to. (A share of the whole time would be met on a slow device and not on a faster one,
# which would then take longer.)
GAIN, GAIN_EACH = 0.04, 0.01
# Where loading waits for a disk, more workers than cores do so side by side, so many for each core.
WAITING_WORKERS = 4
# Loading that computes takes up to so many times as long in a run as while planning.
BUSY_MACHINE = 1.5


class Loading(NamedTuple):
    """Seconds of loading one micro-batch in one process; no core computes while it is `waiting`."""

    seconds: float
    waiting: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether that is worth a word."""
        return self.waiting > 0.1 * self.seconds


def loading_seconds(sample_seconds: float, micro_batch: float) -> float:
    """Loading one micro-batch in one process: each sample's own time, seeding and collating."""
    return micro_batch * (sample_seconds + SAMPLE_SECONDS)


def fed_seconds(
    model_seconds: float,
    loading: Loading,
    workers: int,
    *,
    cores: float = math.inf,
    threads: int = 0,
) -> float:
    """One micro-batch with its loading: after one another, or side by side with workers.

    Of more workers than cores some wait, unless loading itself waits. Where the model computes on
    `threads` of the same cores, a thread that shares its core with a worker is late, and all others
    wait for it; several are late at different times, which costs LATE of the model's time at most.
    The worker is late too, by half of what it computes meanwhile.
    """
    if workers == 0:
        return model_seconds + loading.seconds
    computing = loading.seconds - loading.waiting
    share = computing / loading.seconds if loading.seconds else 0.0
    busy, free = (min(workers, _served(on, share)) for on in (cores, cores - threads))
    delivered = max(loading.seconds, HANDOVER_SECONDS)
    late = min(computing, computing / min(busy, cores) + LATE * model_seconds)
    held_up = max(loading.seconds + min(computing, model_seconds) / 2, HANDOVER_SECONDS)
    shared = max(model_seconds + late, held_up / busy)
    if free < 1:
        return shared
    apart = max(model_seconds, delivered / free)
    return apart if free == busy else min(apart, shared)


def _served(cores: float, share: float) -> float:
    """How many that compute for a share of their time so many cores serve without delay."""
    if cores <= 0:
        return 0.0
    return cores / share if share else math.inf


def most_workers(loading: Loading, cores: int, threads: int = 0) -> int:
    """As many as the cores serve: all of them, where the model computes on `threads` of them itself
    and a step's time says what sharing costs, else all but one. Where loading waits, more.
    """
    if cores < 2:
        return 0
    able = cores if threads else cores - 1
    share = 1 - loading.waiting / loading.seconds if loading.seconds else 1.0
    return max(able, round(min(_served(able, share), WAITING_WORKERS * cores)))


def worth(seconds: float, workers: int, model_seconds: float) -> float:
    """Seconds of a micro-batch with so many workers, and what these have to gain beside."""
    return seconds + ((GAIN + GAIN_EACH * workers) * model_seconds if workers else 0.0)


def best_workers(fed: Callable[[int], float], model_seconds: float, most: int) -> int:
    """How many are worth most, by what a micro-batch takes with so many of them."""
    return min(range(most + 1), key=lambda many: worth(fed(many), many, model_seconds))
