"""Red flags about what is learned: nothing yet, no more, or the training set by heart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from autotrain.rates import is_error_rate
from autotrain.run.watching.flags import (
    FINE,
    ROW,
    USUAL,
    Flag,
    Rule,
    Seen,
    Verdict,
    learned,
    percent,
)
from autotrain.run.watching.history import History
from autotrain.trends import SURE, most_fall, rise, trend, wobble

# A hundred steps may go by while a network leaves its first saddle; twice that is a question.
START_STEPS, START_FALL = 200, 0.01
# (standard deviations of the trend, rise as a share of the best, rise in noises). The validation
# figures of a noisy run wander, and steadily for a while: a rise by a tenth must be one that no
# wandering explains (ten evaluations, each above the one before, score 4.0), one by a half need
# not (six score 2.8). Of 200 simulated runs without overfitting, of 1 to 20 % noise that wanders,
# 6 % were told of one; of 200 with, all but one at most.
RISES = ((4.0, 0.1, 3.0), (2.6, 0.5, 10.0))
RISING, FALLING_SCORE, FELL_SCORE = 6, -2.0, -4.0
# No stall of less than 500 steps says anything (see plan/patience.py).
STILL, STILL_STEPS, STILL_FALL = 8, 500, 0.01
# A rate that the schedule has brought down this far is meant to end in standing still.
PEAK_SHARE = 0.6
# The measure of outputs that are loops, and how many of them are too many.
REPEATED, LOOPS = "repeated", 0.2


def not_learning(seen: Seen) -> Verdict:
    """The training loss is where it was before the first step."""
    past = seen.past
    beyond = seen.plan.schedule.warmup_steps + max(START_STEPS, seen.way.steps_per_epoch)
    if len(past.losses) < USUAL or past.steps[-1] < beyond or not past.first:
        return None
    first, recent = past.first, past.losses[-USUAL:]
    noise = wobble(first) / math.sqrt(len(first)), wobble(recent) / math.sqrt(USUAL)
    start, now = fmean(first), fmean(recent)
    fall, error, little = start - now, SURE * math.hypot(*noise), START_FALL * abs(start)
    if fall + error >= little:
        return FINE if fall - error > little else None
    return Flag(
        f"the training loss is {now:.4g} after {past.steps[-1]:,} steps, {start:.4g} at the start",
        "see whether it learns 5 samples by heart; if not, check that labels belong to their "
        "samples, then try optimizer.lr x 3 and / 3",
    )


def overfitting(seen: Seen) -> Verdict:
    """What is monitored is past its best, it or the loss clearly rises, and training falls on.

    Only after each sample was seen again since that best.
    """
    past = seen.past
    if not past.figures:
        return None
    best = past.figures.index(min(past.figures))
    since = len(past.figures) - 1 - best
    if since == 0:
        return FINE
    again = past.evaluated[-1] - past.evaluated[best] >= seen.way.steps_per_epoch
    if since < RISING or not again or trend(past.trained[best:]) > FALLING_SCORE:
        return None
    if _rises(past.figures[best:]):
        sign = -1.0 if seen.better == "higher" else 1.0
        return _by_heart(seen, best, [sign * figure for figure in past.figures])
    low = past.losses_valid.index(min(past.losses_valid))
    if _rises(past.losses_valid[low:]):
        return _by_heart(seen, low, past.losses_valid)
    return None


def _by_heart(seen: Seen, best: int, shown: list[float]) -> Flag:
    epoch = seen.way.epoch(seen.past.evaluated[best])
    message = (
        f"overfitting since epoch {epoch}: validation went from {shown[best]:.4g} to "
        f"{shown[-1]:.4g} while the training loss falls"
    )
    stop = "" if seen.plan.early_stop.patience else f"early_stop.patience = {RISING}, "
    return Flag(message, f"{stop}more data or augmentation, more dropout or weight decay")


def _rises(values: Sequence[float]) -> bool:
    """From the first, the lowest, and by more than chance."""
    if len(values) <= RISING:
        return False
    score, high, noise = trend(values[1:]), rise(values), wobble(values)
    return any(
        score >= steady and high > max(share * abs(values[0]), noises * noise)
        for steady, share, noises in RISES
    )


def plateau(seen: Seen) -> Verdict:
    """Neither loss fell by 1 % in the last half of the run, with the rate still high."""
    past, optimizer = seen.past, seen.plan.optimizer
    count = _stall(past)
    if count is None or learned(past):
        return None
    trained, valid = past.trained[-count:], past.losses_valid[-count:]
    if min(past.figures[-count // 2 :]) < min(past.figures[: -count // 2]):
        falls = min(trend(trained), trend(valid)) < FELL_SCORE
        return FINE if falls else None
    began = past.evaluated[-count - 1]
    if began < seen.plan.schedule.warmup_steps or past.lr < PEAK_SHARE * optimizer.lr:
        return None
    if max(most_fall(trained), most_fall(valid)) >= STILL_FALL:
        return None
    message = f"a plateau: neither loss has fallen by 1 % since step {began:,}"
    return Flag(
        message, "a lower optimizer.lr, or schedule.name cosine or plateau; or stop, if it will do"
    )


def _stall(past: History) -> int | None:
    """So many of the last evaluations: half of all, and 500 steps at least; None: too few yet."""
    known, now = len(past.evaluated), past.evaluated[-1] if past.evaluated else 0
    counts = range(max(STILL, known // 2), known)
    return next((n for n in counts if now - past.evaluated[-n - 1] >= STILL_STEPS), None)


# --- measures -----------------------------------------------------------------------------------


def suspicious(name: str, value: float) -> bool:
    """Whether a measure's value calls for a look at the outputs themselves."""
    return value > LOOPS if name == REPEATED else is_error_rate(name) and value > 1.0


def error_rates(seen: Seen) -> Verdict:
    """Errors of over 100 %, at several evaluations in a row."""
    name, value = _strange(seen, is_error_rate)
    if value is None:
        return FINE if name is None else None
    return Flag(
        f"{name} is {percent(value)}: more errors than the references have words or characters",
        "stop and look at some outputs: are units and labels those of the references?",
    )


def repeating(seen: Seen) -> Verdict:
    """Outputs that are loops, at several evaluations in a row."""
    name, value = _strange(seen, lambda name: name == REPEATED)
    if value is None:
        return FINE if name is None else None
    return Flag(
        f"{percent(value)} of the outputs repeat themselves",
        "look at some: a repetition penalty, length normalisation, more CTC weight",
    )


def _strange(seen: Seen, of: Callable[[str], bool]) -> tuple[str | None, float | None]:
    """A measure of that kind which was suspicious, and its value once it was so for long."""
    past = seen.past
    if past.evaluated and past.evaluated[-1] <= seen.plan.schedule.warmup_steps:
        return "", None
    found = [(n, value, streak) for n, (value, streak) in past.measured.items() if of(n) and streak]
    name, value, streak = max(found, key=lambda each: each[2], default=(None, 0.0, 0.0))
    return name, value if streak >= ROW else None


AT_LOG_POINTS: Mapping[str, Rule] = {"not learning": not_learning}
AT_EVALUATIONS: Mapping[str, Rule] = {
    "overfitting": overfitting,
    "plateau": plateau,
    "error rates": error_rates,
    "repeating": repeating,
}
