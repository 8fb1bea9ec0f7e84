"""The gradient-noise scale: how many samples a step can use, from how far gradients scatter.

B_simple = tr(Sigma) / |G|^2, McCandlish 2018, arXiv:1812.06162, appendix A.1: Sigma is the
covariance of single samples' gradients, G their mean. At this batch a step is as much noise as
direction: below it, twice the samples save nearly half the steps; above it, they are wasted.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from autotrain.plan import batch
from autotrain.plan.ledger import Ledger
from autotrain.schema import Beside, NoiseTest, NoiseWindow
from autotrain.units import count_text

PARTS, LEAST_MICRO = 8, 8
STEPS, LEAST_STEPS = 64, 8
RESAMPLES = 400
SHARE = 0.95
# The start is the first quarter of the steps; what counts is the last half.
START, LATER = 0.25, 0.5
# At least so many steps an epoch.
STEPS_AN_EPOCH = 10
SOURCE = "gradients measured on this machine, as McCandlish 2018, arXiv:1812.06162, A.1"
_TOTAL = "batch.global_batch"
_CUT = ("batch.micro_batch", "batch.accum_steps")
_PARTS = ("micro_batch", "accum_steps", "world_size")


class Scale(NamedTuple):
    """A noise scale in samples, and the ends of its interval; `high` may be infinite."""

    low: float
    expected: float
    high: float


class Found(NamedTuple):
    """The noise scale at the start and later on; `why_not`: why there is none, or ""."""

    start: Scale | None
    later: Scale | None
    why_not: str = ""


def scales(test: NoiseTest) -> Found:
    """What a measurement says. Without a figure for later there is none to use."""
    count = len(test.windows)
    if count < 4 or test.parts < 2:
        return Found(None, None, f"{count} steps could be measured, and 4 is the least")
    if test.micro_batch >= test.count:
        return Found(None, None, "one micro-batch is the whole dataset: nothing scatters")
    start = scale(test, test.windows[: max(round(START * count), 2)])
    later = scale(test, test.windows[-max(round(LATER * count), 2) :])
    if later is None:
        return Found(start, None, "the gradients are noise: their mean is not told from zero")
    return Found(start, later)


def scale(test: NoiseTest, windows: Sequence[NoiseWindow]) -> Scale | None:
    """The noise scale over some steps, with an interval by bootstrap over these steps.

    None where |G|^2 is not positive, in the estimate or in 1 - SHARE of the resamples.
    """
    expected = _ratio(test, windows)
    if expected is None:
        return None
    chance = random.Random(0)
    drawn = (_ratio(test, chance.choices(windows, k=len(windows))) for _ in range(RESAMPLES))
    ordered = sorted(math.inf if value is None else value for value in drawn)
    tail = (1 - SHARE) / 2
    low, high = ordered[int(tail * RESAMPLES)], ordered[int((1 - tail) * RESAMPLES)]
    if sum(map(math.isinf, ordered)) > (1 - SHARE) * RESAMPLES:
        return None
    return Scale(min(low, expected), expected, max(high, expected))


def estimates(test: NoiseTest, window: NoiseWindow) -> tuple[float, float]:
    """Unbiased |G|^2 and tr(Sigma) from one step's gradients.

    A mean of K micro-batches scatters by 1 / K of what each does. A micro-batch of b samples
    scatters by 1 / b of a sample, and by less the more of the N samples it takes:
    (N - b) / (N - 1).
    """
    square = window.square - window.spread / test.parts
    missing = (test.count - test.micro_batch) / max(test.count - 1, 1)
    return square, window.spread * test.micro_batch / missing


def _ratio(test: NoiseTest, windows: Sequence[NoiseWindow]) -> float | None:
    """The ratio of the averages: an average of ratios would be biased."""
    found = [estimates(test, window) for window in windows]
    square = statistics.fmean(s for s, _ in found)
    return statistics.fmean(t for _, t in found) / square if square > 0 else None


def sizes(micro_batch: int, target: int, count: int) -> tuple[int, int]:
    """Samples in a micro-batch and micro-batches in a step, to measure with.

    About twice the batch in question in all, in PARTS small ones that memory has room for.
    """
    wanted = max(2 * target // PARTS, LEAST_MICRO)
    return max(min(wanted, micro_batch, count // 2), 1), PARTS


def steps_within(step: float, seconds: float) -> int:
    """How many steps of so many seconds to measure: STEPS, or fewer where they take too long."""
    return min(max(int(seconds / max(step, 1e-9)), LEAST_STEPS), STEPS)


def batch_for(found: Scale, count: int) -> int:
    """The power of two nearest to the noise scale, from 8 to a tenth of the samples.

    But not under what the rule of thumb takes where that tenth is less.
    """
    rule = batch.default_global_batch(count)
    tenth = 2 ** math.floor(math.log2(max(count / STEPS_AN_EPOCH, 1)))
    nearest = 2 ** round(math.log2(max(found.expected, 1)))
    return int(min(max(nearest, 8), max(tenth, rule)))


def wanted(ledger: Ledger, test: NoiseTest | None, count: int) -> int | None:
    """The global batch by the noise scale; None: not measured, or the user gives another.

    A recipe's batch makes room for it; its micro_batch stays the most at once.
    """
    later = scales(test).later if test is not None else None
    if later is None or _users(ledger):
        return None
    ledger.drop(_TOTAL)
    ledger.drop("batch.accum_steps")
    return batch_for(later, count)


def record(ledger: Ledger, test: NoiseTest | None, count: int) -> None:
    """Say in `because` what was measured, and what came of it."""
    if test is None:
        return
    reason, found = ledger.because["batch"]["global_batch"], scales(test)
    changes: dict[str, Any] = {"formula": f"{reason.formula}; {told(test)}"}
    if found.later is not None and _users(ledger):
        measured = Beside(
            name="gradient-noise scale",
            value=batch_for(found.later, count),
            formula=told(test),
            why_not="you set the batch yourself",
        )
        changes = {"beside": (*reason.beside, measured)}
    elif found.later is not None:
        target = batch_for(found.later, count)
        rule = batch.default_global_batch(count)
        parts = " x ".join(f"{key} {ledger.value(f'batch.{key}')}" for key in _PARTS)
        changes = {
            "kind": "measured",
            "formula": f"{parts}; {target} wanted: {told(test)}; the power of two nearest, "
            f"from 8 to a tenth of {count} training samples",
            "source": SOURCE,
            "limited_by": "the dataset" if target < 0.7 * found.later.expected else "",
            "would_change": f"--set {_TOTAL}=...; a measurement later in training",
            "beside": (
                Beside(
                    name="rule of thumb",
                    value=rule,
                    formula=f"the power of two nearest to the square root of {count} samples",
                    why_not="it was not measured on this model and data",
                ),
            ),
        }
    ledger.record(_TOTAL, reason.value, reason.model_copy(update=changes))


def _users(ledger: Ledger) -> bool:
    """Whether the user says how many samples a step takes, in one way or another."""
    ways = (_TOTAL, "batch.target_items")
    return any(map(ledger.by_user, ways)) or all(map(ledger.by_user, _CUT))


def told(test: NoiseTest) -> str:
    """The measurement in words, with its numbers."""
    found = scales(test)
    if found.later is None:
        return f"the gradient-noise scale could not be measured: {found.why_not}"
    low, expected, high = (count_text(value) for value in found.later)
    steps = len(test.windows)
    began = f", {count_text(found.start.expected)} at the start" if found.start else ""
    return (
        f"the gradients of {test.parts} x {test.micro_batch} samples, over the last "
        f"{round(LATER * steps)} of {steps} steps, put the noise scale at {expected} samples "
        f"({low} to {high}){began}; it grows as the loss falls"
    )
