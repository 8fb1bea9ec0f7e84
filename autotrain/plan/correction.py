"""What a trial changes: predictions at the size that was tried, and at every other.

At the tried size the measured figure stands in place of the predicted one. Elsewhere what was
predicted above the process's base is multiplied by measured / predicted, as at the nearest size
tried, and half of the doubt is left. docs/trial.md has it in a table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from autotrain.plan.memory import Setup
from autotrain.schema import Device, Prediction, Trial
from autotrain.units import MIB, bytes_text, seconds_text

# What the same steps take when they are taken again: share and bytes, below and above.
BELOW, ABOVE, APART = 0.02, 0.04, 8 * MIB
# Of what a trial's steps hold above the process's base on a CPU, how much more a run comes to hold:
# little that stays settles in malloc's holes, so that what is large fits into fewer. Expected and
# at most, and no more than had been predicted (docs/measurements/2026-11-20-cpu-memory.md).
GROWTH = (0.15, 0.5)
# Where samples differ in size: a trial's are of one. docs/measurements/2026-11-30-many-sizes.md.
GROWTH_OF_MANY = (0.75, 2.0)
# Of the interval without a trial, what is left at sizes that were not tried.
LEFT = 0.5
# Ratios of less than this much memory are noise: there the difference is added instead.
SMALL = 64 * MIB
# After memory ran out: how much more was wanted is not known.
LACKED, LACKED_HIGH = 1.2, 1.5
# Seconds of a step that was tried, and of one that was not: a factor to each side.
TRIED_SPREAD, NEAR_SPREAD = 1.4, 1.7


class Point(NamedTuple):
    """A figure at a size that was tried: as measured, and as it had been predicted.

    `at_least`: memory ran out there, and more was wanted. `as_long`: its samples were as long
    as those in question. `holds`: gradients of other micro-batches, 1 where only this step held
    them, -1 where only the one in question does. `more`: what a long run holds beyond that,
    expected and at most.
    """

    micro_batch: int
    measured: float
    predicted: float
    base: float = 0.0
    at_least: bool = False
    as_long: bool = True
    holds: int = 0
    by: str = "a trial"
    more: tuple[float, float] = (0.0, 0.0)

    @property
    def alike(self) -> bool:
        """Whether it was the step in question, but for the micro_batch."""
        return self.as_long and self.holds == 0

    def known(self) -> Prediction:
        """The interval at this size."""
        if self.at_least:
            above = self.measured - self.base
            return Prediction(
                low=self.measured,
                expected=self.base + LACKED * above,
                high=self.base + LACKED_HIGH * above,
            )
        expected = self.measured + self.more[0]
        return Prediction(
            low=max((1 - BELOW) * self.measured - APART, 0.0),
            expected=expected,
            high=max((1 + ABOVE) * expected + APART, self.measured + self.more[1]),
        )


def relevant(trials: Sequence[Trial], device: Device, setup: Setup) -> list[Trial]:
    """Those of this device and these settings that say what a step takes."""
    wanted = (device.kind, device.index, setup.dtype, setup.optimizer, setup.implementation)

    def about(trial: Trial) -> bool:
        where = (trial.device, trial.index, trial.dtype, trial.optimizer, trial.implementation)
        told = trial.outcome in ("ok", "out_of_memory")
        same = (trial.momentum, trial.form, trial.ema) == (setup.momentum, setup.form, setup.ema)
        return told and where == wanted and same

    return [trial for trial in trials if about(trial)]


def setups(trial: Trial, like: Setup) -> list[Setup]:
    """The steps that a trial took: one, or one of each bucket. Settings are those of `like`."""
    parts = trial.buckets or ((0.0, trial.micro_batch),)
    return [
        like._replace(micro_batch=size, accum_steps=trial.accum_steps, length=end, several=False)
        for end, size in parts
    ]


def points(
    trials: Sequence[Trial],
    setup: Setup,
    key: str,
    predict: Callable[[Setup], Prediction],
    *,
    differ: bool = False,
) -> list[Point]:
    """What trials of `setup`'s settings measured of `key`, beside what `predict` says of it.

    `differ`: a run's samples do in size.
    """
    found, growth = [], GROWTH_OF_MANY if differ else GROWTH
    for trial in trials:
        measured = getattr(trial, key)
        if measured is None:
            continue
        worst = max(setups(trial, setup), key=lambda s: predict(s).expected)
        raw, ran_out = predict(worst), trial.outcome == "out_of_memory"
        base = trial.base_bytes if key == "device_peak_bytes" else 0
        found.append(
            Point(
                micro_batch=worst.micro_batch,
                # Where memory ran out, what was seen by then says little.
                measured=float(max(measured, raw.expected) if ran_out else measured),
                predicted=raw.expected,
                base=float(base),
                at_least=ran_out,
                as_long=worst.length == setup.length,
                holds=trial.accum_steps - min(setup.accum_steps, 2),
                by="a run" if trial.of_run else "a trial",
                more=(0.0, 0.0) if trial.of_run else _growth(growth, base, measured, raw.high),
            )
        )
    return found


def _growth(
    shares: tuple[float, float], base: float, measured: float, most: float
) -> tuple[float, float]:
    """What a run comes to hold on a CPU beyond a trial: expected, and at most."""
    above, room = measured - base if base else 0.0, max(most - measured, 0.0)
    expected, high = (min(share * above, room) for share in shares)
    return expected, high


def exact(found: Sequence[Point], micro_batch: int) -> Point | None:
    """The last point of just this size."""
    same = [p for p in found if p.micro_batch == micro_batch and p.alike]
    return same[-1] if same else None


def nearest(found: Sequence[Point], micro_batch: int) -> Point:
    """The point whose size is closest by ratio; those that are alike before others."""
    return min(found, key=lambda p: (not p.alike, abs(math.log(p.micro_batch / micro_batch))))


def corrected(raw: Prediction, micro_batch: int, found: Sequence[Point]) -> Prediction:
    """Bytes at `micro_batch`, where `raw` was predicted, in the light of what was tried.

    A step takes no more than a larger one that was measured, and no less than a smaller one;
    one that holds gradients of others is the larger.
    """
    if not found:
        return raw
    tried = exact(found, micro_batch)
    if tried is not None:
        return tried.known()
    made = _scaled(raw, nearest(found, micro_batch))
    low, expected, high = made.low, made.expected, made.high
    as_long = [p for p in found if p.as_long]
    for point in as_long:
        if point.micro_batch >= micro_batch and point.holds >= 0 and not point.at_least:
            known = point.known()
            expected, high = min(expected, known.expected), min(high, known.high)
    # Last, as it is the safer one where two trials contradict each other.
    for point in as_long:
        if point.micro_batch <= micro_batch and point.holds <= 0:
            known = point.known()
            low, expected = max(low, known.low), max(expected, known.expected)
            high = max(high, known.high)
    return Prediction(low=min(low, expected), expected=expected, high=max(high, expected))


def moved(own: Prediction, bare: Prediction, whole: Prediction) -> Prediction:
    """`own`, and what `whole` has over `bare`."""
    return Prediction(
        low=own.low + max(whole.low - bare.low, 0.0),
        expected=own.expected + max(whole.expected - bare.expected, 0.0),
        high=own.high + max(whole.high - bare.high, 0.0),
    )


def said(raw: Prediction, micro_batch: int, found: Sequence[Point]) -> str:
    """How a figure at `micro_batch` was corrected, in words; nothing where it was not."""
    if not found:
        return ""
    point = exact(found, micro_batch) or nearest(found, micro_batch)
    size, measured = f"micro_batch {point.micro_batch}", bytes_text(point.measured)
    if point.at_least:
        return f"memory ran out at {size} with {measured} taken; it had said {_span(raw)}"
    grows = ""
    if point.more[1]:
        grows = f", and a long run comes to hold up to {bytes_text(point.more[1])} more"
    if point.micro_batch == micro_batch and point.alike:
        return f"{point.by} at {size} took {measured}{grows}; without it: {_span(raw)}"
    return (
        f"{point.by} at {size} took {measured}{grows}; predicted {bytes_text(point.predicted)}: "
        f"what is above the process's base is corrected by as much; without it: {_span(raw)}"
    )


def _span(raw: Prediction) -> str:
    return f"{bytes_text(raw.expected)} ({bytes_text(raw.low)} to {bytes_text(raw.high)})"


class Pace(NamedTuple):
    """Measured over predicted seconds, of a micro-batch and of the update; None: no trial.

    `of_runs`: steps of whole runs, with what loaded beside them. The last four are what runs
    measured: seconds to load a sample with no worker beside it, to
    evaluate one, to save, and what the first steps took over later ones.
    """

    micro: float = 1.0
    update: float = 1.0
    spread: float | None = None
    said: str = ""
    of_runs: bool = False
    sample_seconds: float | None = None
    evaluation_seconds: float | None = None
    save_seconds: float | None = None
    start_seconds: float | None = None


def pace(
    trials: Sequence[Trial],
    setup: Setup,
    micro: Callable[[Setup], float],
    update: float,
    making: float = 0.0,
) -> Pace:
    """How true seconds proved at the nearest size tried; `update` is what was predicted for it.

    `making`: seconds for kernels that are made anew where the last micro-batch had another size, as
    in a trial of several buckets.
    """
    timed = [t for t in trials if t.outcome == "ok" and t.micro_seconds and t.update_seconds]
    if not timed:
        return Pace()
    # Of several at that size the last.
    trial = min(timed[::-1], key=lambda t: abs(math.log(t.micro_batch / setup.micro_batch)))
    assert trial.micro_seconds is not None
    assert trial.update_seconds is not None
    predicted = statistics.median(map(micro, setups(trial, setup)))
    predicted += making if len(trial.buckets) > 1 else 0.0
    same = trial.micro_batch == setup.micro_batch
    return Pace(
        micro=trial.micro_seconds / max(predicted, 1e-9),
        update=trial.update_seconds / max(update, 1e-9),
        spread=TRIED_SPREAD if same else NEAR_SPREAD,
        said=f"a trial at micro_batch {trial.micro_batch} took "
        f"{seconds_text(trial.micro_seconds)} for one and {seconds_text(trial.update_seconds)} "
        f"for the update, predicted {seconds_text(predicted)} and {seconds_text(update)}",
    )


def _scaled(raw: Prediction, point: Point) -> Prediction:
    """What was predicted, times what proved true of it above the base; half of the doubt left.

    It may be as little as was measured: what a long run comes to hold beyond that need not come.
    """
    known, predicted = point.known(), point.predicted - point.base

    def by(measured: float) -> tuple[float, float]:
        if predicted < SMALL:
            return 1.0, max(raw.expected + measured - point.predicted, 0.0)
        times = (measured - point.base) / predicted
        return times, point.base + times * max(raw.expected - point.base, 0.0)

    ratio, expected = by(known.expected)
    least = expected if point.at_least else by(point.measured)[1]
    left = LEFT * max(ratio, 0.0)
    below, above = left * (raw.expected - raw.low), left * (raw.high - raw.expected)
    if point.at_least:  # as much as is known of the size where memory ran out
        above = max(above, (LACKED_HIGH / LACKED - 1) * max(expected - point.base, 0.0))
    return Prediction(
        low=max(min(expected - below, (1 - BELOW) * least - APART), 0.0),
        expected=expected,
        high=max(expected + above, (1 + ABOVE) * expected + APART),
    )
