"""Whether what loads samples keeps up with the model that learns from them: rows, and what follows.

Pure: reading is `bench.feeding`'s business, the model's steps `bench.rounds`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from autotrain.bench.spread import Spread
from autotrain.bench.verdict import times
from autotrain.schema import Prediction, Record
from autotrain.units import seconds_text

# Fewer workers are as good as more where the rest gains less than this; a plan is left alone
# where another number gains less than that.
AS_GOOD, WORTH = 0.02, 0.05
# A sample is worth naming that takes so many times the usual, and so long.
SLOW_TIMES, SLOW_SECONDS = 10.0, 0.01


class Row(Record):
    """Reading by so many `workers` (0: in the training process), with nothing training beside it.

    `waits`: the share of a step in which the model would wait; `trains`: samples a second that
    would be trained on. `chosen`: the plan's own.
    """

    workers: int
    samples_per_second: Prediction
    waits: float
    trains: float
    chosen: bool
    rounds: int


class Slowest(Record):
    """What reading one sample takes, of `count` that were read one by one."""

    count: int
    median_seconds: float
    worst_seconds: float
    worst_index: int


def row(workers: int, rates: Spread, model: float, *, chosen: bool) -> Row:
    """`rates` and `model`: samples a second that are read, and that the model could take."""
    read = rates.middle
    trains = 1 / (1 / read + 1 / model) if workers == 0 else min(read, model)
    return Row(
        workers=workers,
        samples_per_second=Prediction.around(rates.low, read, rates.high),
        waits=max(1 - trains / model, 0.0),
        trains=trains,
        chosen=chosen,
        rounds=rates.rounds,
    )


def slowest(alone: Sequence[tuple[int, float]]) -> Slowest | None:
    """Of samples and their seconds."""
    if not alone:
        return None
    index, worst = max(alone, key=lambda each: each[1])
    middle = median(seconds for _, seconds in alone)
    return Slowest(count=len(alone), median_seconds=middle, worst_seconds=worst, worst_index=index)


def best(rows: Sequence[Row]) -> Row:
    """The fewest workers by which training is about as fast as by any."""
    most = max(each.trains for each in rows)
    return next(
        r for r in sorted(rows, key=lambda r: r.workers) if r.trains >= most - AS_GOOD * most
    )


def better(rows: Sequence[Row], keep: str | None = None) -> Row | None:
    """What to change the plan to; None where it is as good, or samples are kept once read."""
    if keep is not None:
        return None
    own, other = next((each for each in rows if each.chosen), None), best(rows)
    return None if own is not None and own.trains >= (1 - WORTH) * other.trains else other


def advice(rows: Sequence[Row], model: float, keep: str | None = None, *, on_cpu: bool) -> str:
    """One sentence: whether loading keeps up, and what to set where it does not.

    `keep`: where the plan has samples stay once they were read.
    """
    own, other = next((each for each in rows if each.chosen), None), better(rows, keep)
    cores = ", if cores are left: on a CPU workers take them from the model" if on_cpu else ""
    if other is not None:
        now = f"{own.waits:.0%} of a step" if own is not None else "an unknown share of a step"
        return (
            f"set loader.workers={other.workers}: the model waits for samples for {now} as planned "
            f"and for {other.waits:.0%} then{cores if other.workers else ''}"
        )
    assert own is not None
    if keep is not None:
        where = "in RAM" if keep == "ram" else "where the model computes"
        return (
            f"keep the plan: samples stay {where} once they were read, and the model waits for "
            f"{own.waits:.0%} of a step in the first epoch alone"
        )
    said = f"keep loader.workers={own.workers}"
    read = own.samples_per_second.expected
    if own.waits > WORTH:
        return (
            f"{said}: no number of workers helps, and the model waits for {own.waits:.0%} of a "
            "step: make a sample cheaper to read, or loader.keep=ram"
        )
    return (
        f"{said}: {times(read / model)} as many samples are read as the model takes, and it waits "
        f"for {own.waits:.1%} of a step"
    )


def said_of(found: Slowest) -> str:
    """One line about single samples."""
    usual = f"a sample takes {seconds_text(found.median_seconds)} to read (median of {found.count})"
    times = found.worst_seconds / max(found.median_seconds, 1e-9)
    if times < SLOW_TIMES or found.worst_seconds < SLOW_SECONDS:
        return usual
    return (
        f"{usual}; number {found.worst_index} took {seconds_text(found.worst_seconds)}, "
        f"{times:.0f} x as long"
    )
