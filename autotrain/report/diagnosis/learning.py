"""What was learned: the training set by heart, too little, no more, or what there is to learn."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean

from autotrain.rates import is_error_rate
from autotrain.report.diagnosis import advice
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
from autotrain.report.text import number, percent

# Of the whole fall, and of what is left: less in the last quarter of a run, and it stands still.
LATE, LATE_OF_LEVEL, LATE_SURE = 0.05, 0.03, 4.0
# So many evaluations have a course of their own. Of fewer, each may be better than the one before,
# the last by so much of its level.
ENOUGH, FEW_GAIN = 8, 0.05
# A rate or an accuracy so near to none, or to all, leaves little to wish for.
GOOD_RATE = 0.05
# So much of the first loss, and hardly anything was learned.
HARDLY = 0.8
# What falls so much of its whole way in the last quarter has not come half way.
STEADY = 0.12
# A rate above so much of its peak is high; what stood still for so much of a run stands still.
HIGH, LOW, LONG = 0.5, 0.2, 0.3
# Where it ended low, as planned, so much of the first loss may be all that nobody can learn.
LEARNED_SLOWLY = 0.4
# Steps of an epoch, and of a run, up to which a batch is too large a part of the data.
FEW_STEPS, FEW_IN_ALL = 4, 1000


def underfitting(view: View) -> Finding | None:
    """Most of the first loss is left: nothing was learned, or the end came too early."""
    trained = view.trained
    if len(trained) < POINTS or not view.whole or not view.positive or _good(view):
        return None
    late, falls = late_fall(trained), still_falls(trained)
    slow = falls and view.left > HALF and late >= STEADY
    if not slow and view.left < HARDLY:
        return None
    how = f"the training loss went from {number(trained.start)} to {number(trained.end)} only"
    if slow:
        how += f", and {percent(late)} of that in the last quarter of the run"
    if view.per_epoch <= FEW_STEPS and view.result.steps <= FEW_IN_ALL and _counted(view):
        samples = view.plan.batch.global_batch
        return Finding(
            "batch_too_large",
            f"a step takes {samples} samples, an epoch {view.per_epoch} of them, the whole run "
            f"{view.result.steps:,}: {how}",
            "the weights are changed too few times to learn from this data: a smaller batch makes "
            "more steps of the same samples",
            advice.smaller_batch(view.plan),
        )
    return Finding(
        "underfitting",
        how,
        "it has not learned what the training samples hold: a higher rate or more epochs; if that "
        "changes nothing, a larger model, or labels that belong to their samples",
        advice.against_underfitting(view.plan, falls=falls),
    )


def _counted(view: View) -> bool:
    return view.plan.batch.global_batch >= 2 * view.plan.batch.world_size


def plateau(view: View) -> Finding | None:
    """Neither loss has fallen for long, the rate was high, and much of the first loss is left."""
    since = _still_since(view)
    if since is None or _good(view) or not view.left > _enough(view):
        return None
    if _each_better(view) is not None:
        return None
    if view.rate_share(since) < HIGH:
        return None
    share = 1 - since / view.trained.steps[-1]
    if share < LONG:
        return None
    epoch = view.result.epoch(max(int(since), 1))
    what = "neither loss has" if len(view.validated) >= EVALUATIONS else "the training loss has not"
    return Finding(
        "plateau",
        f"{what} fallen since step {int(since):,}, {percent(share)} of the run: "
        f"{number(view.trained.end)} in training" + _valid_end(view),
        "at this rate it goes to and fro: bring the rate down, or let a schedule do it",
        advice.against_plateau(view.plan),
        epoch,
    )


def _enough(view: View) -> float:
    """What of the first loss may be left: more, where the rate has been brought down already."""
    return LEARNED if view.rate_share(view.result.steps) > LOW else LEARNED_SLOWLY


def _valid_end(view: View) -> str:
    return f", {number(view.validated.end)} in validation" if len(view.validated) else ""


def converged(view: View) -> Finding | None:
    """Nothing falls any more, and nothing is wrong with that."""
    trained = view.trained
    if len(trained) < POINTS or _falling(view) is not None or _each_better(view) is not None:
        return None
    since = _still_since(view)
    epoch = view.result.epoch(max(int(since), 1)) if since is not None else None
    best = view.result.best
    reached = f"; best {best.metric} {number(best.value)}" if best else ""
    share = f", {percent(view.left)} of the first" if math.isfinite(view.left) else ""
    return Finding(
        "converged",
        f"the training loss has come to {number(trained.end)}{share}{_valid_end(view)}, and the "
        f"last quarter of the run brought no more{reached}",
        "it is done: more epochs bring nothing; if it is not good enough, a larger model or more "
        "data may",
        advice.shorter(view.plan, epoch),
        epoch,
    )


def improving(view: View) -> Finding | None:
    """It still falls."""
    if len(view.trained) < POINTS:
        return None
    where = "at its end" if view.whole else "so far"
    falling, name = _falling(view) or (view.trained, "the training loss")
    how = f"{percent(late_fall(falling))} of all that it gained came in the last quarter"
    if _falling(view) is None and (few := _each_better(view)) is not None:
        falling, name = few
        before, last = (number(abs(value)) for value in falling.values[-2:])
        how = f"each of {len(falling)} evaluations found it better, the last {last} after {before}"
    return Finding(
        "improving",
        f"{name} still improves {where}: {how}",
        "it can go on: more epochs, by the same plan" if view.whole else "let it go on",
        advice.longer(view.plan) if view.whole else (),
    )


# --- courses ---------------------------------------------------------------------------------


def late_fall(each: Series) -> float:
    """What the last quarter brought, as a share of the whole fall; 0 where nothing fell."""
    before, last = each.part(0.5, 0.75), each.part(0.75)
    if not before or not last or each.fall <= 0:
        return 0.0
    return max(fmean(before) - fmean(last), 0.0) / each.fall


def still_falls(each: Series) -> bool:
    """Whether the last quarter lies below the one before it: by more than chance, and so much
    that it matters to the whole fall, or to what is left where that is much.
    """
    before, last = each.part(0.5, 0.75), each.part(0.75)
    if not before or not last or each.fall <= 0:
        return False
    fell = fmean(before) - fmean(last)
    error = each.noise * math.sqrt(1 / len(before) + 1 / len(last))
    if fell <= 0 or fell < 2 * error:
        return False
    left = each.end / each.start if min(each.values) >= 0 else 1.0
    much = left > LEARNED and fell >= LATE_OF_LEVEL * abs(each.end) and fell >= LATE_SURE * error
    return fell >= LATE * each.fall or much


def _falling(view: View) -> tuple[Series, str] | None:
    """What still gets better, and its name: first what is monitored."""
    known = [(each, name) for each, name in _evaluated(view) if len(each) >= ENOUGH]
    known += [(view.trained, "the training loss")]
    return next(((each, name) for each, name in known if still_falls(each)), None)


def _evaluated(view: View) -> list[tuple[Series, str]]:
    """What evaluations tell, and its name: first what is monitored."""
    monitored = [(view.figures, view.monitor)] if view.monitor != "loss" else []
    return [*monitored, (view.validated, "the validation loss")]


def _each_better(view: View) -> tuple[Series, str] | None:
    """What few evaluations found better each time, at last by a part that matters, and its name."""
    for each, name in _evaluated(view):
        if not 2 <= len(each) < ENOUGH:
            continue
        gains = [before - after for before, after in pairwise(each.values)]
        if min(gains) > 0 and gains[-1] >= FEW_GAIN * abs(each.values[-1]):
            return each, name
    return None


def _still_since(view: View) -> float | None:
    """The first step from which on neither loss falls from its first half to its second.

    The longest such stretch, a fifth of the run at least; None where there is none.
    """
    sure = [view.trained, *([view.validated] if len(view.validated) >= ENOUGH else [])]
    if len(view.trained) < POINTS:
        return None
    starts = [_still(each) for each in sure]
    return None if None in starts else max(start for start in starts if start is not None)


def _still(each: Series) -> float | None:
    for begin in range(len(each) - max(len(each) // 5, 3)):
        tail = each.values[begin:]
        half = len(tail) // 2
        fell = fmean(tail[:half]) - fmean(tail[half:])
        error = each.noise * math.sqrt(1 / half + 1 / (len(tail) - half))
        level = abs(fmean(tail[half:]))
        if fell <= max(STILL * level, error) and tail[0] - fmean(tail) <= max(
            2 * STILL * level, 2.5 * each.noise
        ):
            return each.steps[begin]
    return None


def _good(view: View) -> bool:
    """Whether the best figure is one that leaves little to wish for."""
    best = view.result.best
    if best is None or best.metric == "loss" or not 0 <= best.value <= 1:
        return False
    if view.higher:
        return best.value >= 1 - GOOD_RATE
    return is_error_rate(best.metric) and best.value <= GOOD_RATE
