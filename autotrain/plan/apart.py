"""Cores that the model leaves to its loader: on a CPU a run on fewer threads may be the faster one.

Where loading computes, a worker that shares a core with a thread of the model holds all of its
threads up. A core of its own costs the model that one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import NamedTuple

from autotrain.plan import compute, overlap
from autotrain.plan.ledger import Ledger
from autotrain.plan.race import DTYPE, FORMAT, THREADS
from autotrain.plan.sizing import Sizing
from autotrain.schema import Reason, Variant
from autotrain.units import seconds_text

# The model is taken for so much slower on fewer threads than a race between both numbers says, or
# than is computed, before that wins. (A gain that has to be so large would be lost again on a
# faster machine, which would take longer then.)
SURE, COMPUTED = 0.05, 0.15


class _Work(NamedTuple):
    """What is to be done on the cores: a micro-batch on all of them, its part of the update, its
    loading by one of so many `workers`."""

    model: float
    update: float
    loading: overlap.Loading
    cores: int
    workers: range


class _Way(NamedTuple):
    """What all of it is worth on so many threads with so many workers; its seconds, and those
    without loading."""

    worth: float
    threads: int
    workers: int
    fed: float
    model: float
    raced: bool = False


# Seconds of the model and of an update on so many threads; and how many times as long as on all.
_Taken = tuple[float, float]
_Slower = tuple[float, float]


def decide(ledger: Ledger, sizing: Sizing, workers: range) -> int | None:
    """How many workers load where the model gets fewer threads than there are, as
    `device.threads` then says; None where it gets them all.

    `workers`: as many as may load. Not where the user or a recipe fixed the threads, nor where
    several processes share the machine.
    """
    time = sizing.time
    several = sizing.processes() > 1 or time.cores() < 2
    if sizing.device.kind != "cpu" or several or ledger.fixed(THREADS) is not None:
        return None
    update = time.update_seconds() / time.micro_batches()
    work = _Work(time.micro_seconds(), update, time.loading(), time.cores(), workers)
    whole = min(ledger.value(THREADS), work.cores)
    now = _way(work, whole, (1.0, 1.0))
    if now.fed <= (1 + SURE) * now.model:  # loading is hidden as it is
        return None
    raced, computed = _raced(ledger, sizing), cache(partial(_computed, sizing))
    for slower in _slower_devices(work):
        plain = _way(slower, whole, (1.0, 1.0))
        ways = (_fewer(slower, raced, computed, whole, n) for n in _numbers(whole))
        found = min(ways, default=plain)
        best = _fewer(work, raced, computed, whole, found.threads)
        if found.worth < plain.worth and best.fed < now.fed:
            break
    else:
        return None
    _record(ledger, best, now)
    return best.workers


def _slower_devices(work: _Work) -> Iterator[_Work]:
    """The same on this device, and on those so much slower that hiding the loading is worth most:
    in products alone, or in all.

    What is chosen there stays chosen as long as it is the faster: a gain has to be so and so large,
    and would fall below that where little is left to gain.
    """
    yield work
    times = work.loading.seconds / work.model
    if times > 1:
        yield work._replace(model=times * work.model)
        yield work._replace(model=times * work.model, update=times * work.update)


def _computed(sizing: Sizing, threads: int) -> _Taken:
    """On so many threads, by what is computed alone."""
    setup = sizing.setup(sizing.count("batch.micro_batch"), sizing.count("batch.accum_steps"))
    model = sizing.at_length(setup.length).model_copy(update={"replays": ()})
    device = compute.on_threads(sizing.device, threads, sizing.hardware.cpu.cores)
    micro = compute.micro_batch_seconds(model, device, setup.micro_batch, setup.dtype, threads)
    kept = sizing.state_bytes() + sizing.average_bytes()
    return micro, compute.optimizer_seconds(model, device, kept)


def _numbers(whole: int) -> list[int]:
    """Threads to try: all but one core, all but two, and so on, in growing steps."""
    left, found = 1, list[int]()
    while left < whole:
        found.append(whole - left)
        left += max(left // 4, 1)
    return found


def _raced(ledger: Ledger, sizing: Sizing) -> dict[int, _Taken]:
    """By the number of threads: what a race says of the way in force."""
    race, named = sizing.model.race, (ledger.value(DTYPE), ledger.value(FORMAT))
    return {
        raced.variant.threads: (raced.micro_seconds, raced.update_seconds)
        for raced in (race.runs if race is not None else ())
        if raced.variant == Variant(*named, raced.variant.threads)
    }


def _fewer(
    work: _Work,
    raced: Mapping[int, _Taken],
    computed: Callable[[int], _Taken],
    whole: int,
    threads: int,
) -> _Way:
    """On fewer threads: by a race between both numbers, else by what is computed for both."""
    if {threads, whole} <= raced.keys():
        slower = _slower(raced[threads], raced[whole])
        return _way(work, threads, slower, SURE)._replace(raced=True)
    return _way(work, threads, _slower(computed(threads), computed(whole)), COMPUTED)


def _slower(one: _Taken, other: _Taken) -> _Slower:
    micro, update = (max(a / b, 1.0) for a, b in zip(one, other, strict=True))
    return micro, update


def _way(work: _Work, threads: int, slower: _Slower, doubt: float = 0.0) -> _Way:
    """With as many workers as are worth it."""
    micro, update = slower[0] * work.model, slower[1] * work.update

    def fed(many: int, doubt: float) -> float:
        model = overlap.fed_seconds(
            doubt * micro, work.loading, many, cores=work.cores, threads=threads
        )
        return model + doubt * update

    worth, many = min((overlap.worth(fed(n, 1 + doubt), n, work.model), n) for n in work.workers)
    return _Way(worth, threads, many, fed(many, 1.0), micro + update)


def _record(ledger: Ledger, way: _Way, now: _Way) -> None:
    took, before = seconds_text(way.fed), seconds_text(now.fed)
    how = "raced" if way.raced else "computed"
    ledger.record(
        THREADS,
        way.threads,
        Reason(
            value=way.threads,
            kind="measured" if way.raced else "rule",
            formula=f"loading has the other cores to itself: the model takes "
            f"{seconds_text(way.model)} on {way.threads} and {seconds_text(now.model)} on "
            f"{now.threads} ({how}), with its loading {took} and {before}",
            source="samples timed on the machine that planned, with their work and their waiting",
            limited_by="cpu.cores",
            would_change=f"--set device.threads={now.threads}",
        ),
    )
