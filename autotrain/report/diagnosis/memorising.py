"""Whether the training set was learned by heart: validation is past its best, or far behind."""

from __future__ import annotations

import math
from statistics import fmean

from autotrain.report.diagnosis import advice
from autotrain.report.diagnosis.valley import Valley, valley
from autotrain.report.diagnosis.view import (
    EVALUATIONS,
    HALF,
    LEARNED,
    POINTS,
    STILL,
    Finding,
    Series,
    View,
)
from autotrain.report.text import number
from autotrain.trends import trend

# A rise is worth a word from so much of the lowest figure, and of the whole fall, on.
RISE, RISE_OF_FALL = 0.05, 0.01
# Validation figures scatter by no more than so much of themselves, where few say how far they do,
# nor than several times as much as training losses, nor than their samples let them.
SCATTER, SCATTER_TIMES, SCATTER_SAMPLES = 0.04, 3.0, 0.5
# A training loss of so little of the validation loss was learned by heart.
GAP = 0.3


def overfitting(view: View) -> Finding | None:
    """Validation is past its best and rises, or stands still, while the training loss falls."""
    if len(view.validated) < EVALUATIONS or len(view.trained) < POINTS:
        return None
    for each, name in _judged(view):
        found = _valley(view, each)
        if _rises(view, each, found) and not _improves_on(view, each, each.steps[found.at]):
            return _by_heart(view, each, found, name)
    return _gap(view)


def _judged(view: View) -> list[tuple[Series, str]]:
    monitored = [] if view.monitor == "loss" else [(view.figures, view.monitor)]
    return [*monitored, (view.validated, "the validation loss")]


def _valley(view: View, each: Series) -> Valley:
    level = abs(min(each.values, key=abs)) or 1e-12
    trained = view.trained.noise / (abs(view.trained.end) or 1e-12)
    by_samples = SCATTER_SAMPLES / math.sqrt(max(view.valid_count, 1)) if view.valid_count else 0.0
    most = level * max(SCATTER, min(SCATTER_TIMES * trained, 0.3), by_samples)
    return valley(each.values, most, 0.002 * level)


def _rises(view: View, each: Series, found: Valley) -> bool:
    """By more than chance, by an amount that matters, and after each sample was seen again."""
    since = each.steps[-1] - each.steps[found.at]
    matters = max(RISE * abs(found.bottom), RISE_OF_FALL * (each.start - found.bottom))
    sure = found.sure and found.rise >= 2 * found.noise
    return (
        sure and found.rise >= matters and since >= view.per_epoch and _falls_on(view, each, found)
    )


def _falls_on(view: View, each: Series, found: Valley) -> bool:
    """Whether the training loss falls while the validation rises, or has nothing left to fall."""
    step = each.steps[found.at]
    before = [v for s, v in zip(view.trained.steps, view.trained.values, strict=True) if s <= step]
    after = view.trained.since(step)
    if not after:
        return False
    then = fmean(before[-2:]) if before else after[0]
    now = fmean(after[-max(len(after) // 3, 1) :])
    low = view.positive and now <= HALF * view.validated.end
    return now < then - max(view.trained.noise, 0.01 * abs(then)) or (low and now <= 1.1 * then)


def _improves_on(view: View, each: Series, step: float) -> bool:
    """Whether the monitored figure goes on improving after the loss was at its lowest."""
    if view.monitor == "loss" or each is view.figures:
        return False
    after = view.figures.since(step)
    best = min(view.figures.values)
    late = best in after[len(after) // 2 :] if after else False
    return late and trend(after) < -2.0


def _by_heart(view: View, each: Series, found: Valley, name: str) -> Finding:
    step = each.steps[found.at]
    epoch = view.result.epoch(int(step))
    sign = -1.0 if view.higher and each is view.figures else 1.0
    best, end = number(sign * found.bottom), number(sign * found.end)
    trained = view.trained.since(step)
    return Finding(
        "overfitting",
        f"{name} was at its best, {best}, in epoch {epoch}, and is {end} at the end, "
        f"while the training loss went on to {number(fmean(trained[-2:]))}",
        "it learns its samples by heart: stop there (the best checkpoint is that of its best "
        "evaluation), regularise, or bring more data or augmentation",
        advice.against_overfitting(view.plan, epoch),
        epoch,
    )


def _gap(view: View) -> Finding | None:
    """The validation loss stands still, high, and the training loss goes to nothing."""
    trained, valid = view.trained, view.validated
    if not view.positive or trained.end > GAP * valid.end or valid.end < LEARNED * valid.start:
        return None
    near = min(valid.values) + max(STILL * valid.end, valid.noise)
    step = next(s for s, v in zip(valid.steps, valid.values, strict=True) if v <= near)
    after = trained.since(step)
    then = [v for s, v in zip(trained.steps, trained.values, strict=True) if s <= step][-1:]
    fell = bool(after and then) and fmean(after[-2:]) < HALF * then[0]
    if not fell or valid.steps[-1] - step < view.per_epoch or _improves_on(view, valid, step):
        return None
    epoch = view.result.epoch(int(step))
    return Finding(
        "overfitting",
        f"the validation loss has stood at {number(valid.end)} since epoch {epoch}, while the "
        f"training loss fell from {number(then[0])} to {number(trained.end)}",
        "it learns its samples by heart and nothing that others share: more data or augmentation, "
        "or regularisation; what comes after that epoch can be left out",
        advice.against_overfitting(view.plan, epoch),
        epoch,
    )
