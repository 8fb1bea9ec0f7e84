"""What keeps a run from learning, or makes it wait: losses that jump, data that is late, memory."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

from autotrain.report.diagnosis import advice
from autotrain.report.diagnosis.valley import CERTAIN, valley
from autotrain.report.diagnosis.view import POINTS, Finding, View
from autotrain.report.text import number, percent, plural
from autotrain.starving import worth_a_word
from autotrain.trends import NORMAL

# Losses that are no numbers, or that jump, as a run's own healing names them.
_BROKEN = re.compile(r"\bnan\b|\binf|not finite|the loss (rose|became)|loss scale", re.IGNORECASE)
_MEMORY = re.compile(r"out of memory|allocator", re.IGNORECASE)
# A jump: so many deviations, so much of the level and of the first loss above what is near. So many
# are no chance; of a few samples each, losses do so by themselves.
JUMP, JUMP_LEVEL, JUMP_START, JUMPS, NEAR = 8.0, 0.75, 0.25, 3, 6
SEVERAL = 8
# A training loss that has risen by so much of its lowest level, and of its whole fall, diverges.
# By so many stretches at least, unless it is far beyond all noise.
DIVERGES, LATE = 0.1, 4
# Losses of neighbouring stretches that differ by so much of their level go to and fro.
# They are no fault of the steps where validation, of the same weights, goes by less than that.
SWINGS, STEADY = 0.35, 0.09
# One step that was left out may be the fault of a sample.
OFTEN = 2
# Of the time. Less than so many seconds in all is nothing that a person would wait for.
STARVED_SECONDS, TIMED = 0.5, 4


def unstable(view: View) -> Finding | None:
    """The loss is no number, jumps, or has risen again."""
    said = _not_finite(view) or _diverges(view) or _jumping(view) or _swinging(view)
    if said is None:
        return None
    evidence, step = said
    return Finding(
        "unstable",
        evidence,
        "steps are too long for this loss: a lower rate, a longer warm-up, gradients cut shorter"
        + advice.by_precision(view.plan),
        advice.against_unstable(view.plan, _usual_norm(view)),
        view.result.epoch(max(int(step), 1)),
    )


def _not_finite(view: View) -> tuple[str, float] | None:
    """NaN and infinity, also where a run left them out and went on."""
    result, points = view.result, view.result.points
    pairs = zip(points.column("step"), points.column("loss"), strict=True)
    bad = [step for step, loss in pairs if not math.isfinite(loss)]
    bad_valid = [e.step for e in result.evaluations if not math.isfinite(e.loss)]
    healed = [e for e in result.healed if _BROKEN.search(e.fault)]
    stopped = result.stopped is not None and result.stopped.reason == "not_finite"
    parts = []
    if bad:
        parts.append(f"the loss is not a finite number at {plural(len(bad), 'log point')}")
    if bad_valid:
        parts.append(f"the validation loss is none at {plural(len(bad_valid), 'evaluation')}")
    if len(healed) >= OFTEN:
        parts.append(f"{plural(len(healed), 'time')} the run mended: {healed[0].fault}")
    if stopped:
        parts.append("the run ended because the loss is no longer a finite number")
    if not parts:
        return None
    step = min([*bad, *bad_valid, *(e.step for e in healed), result.steps])
    return f"{'; '.join(parts)}; first at step {int(step):,}", step


def _diverges(view: View) -> tuple[str, float] | None:
    """The training loss has turned up for good."""
    each = view.trained
    if len(each) < POINTS:
        return None
    found = valley(each.values, least=0.002 * abs(each.end))
    matters = max(DIVERGES * abs(found.bottom), DIVERGES / 2 * (each.start - found.bottom))
    late = len(each) - 1 - found.at
    certain = found.rise >= CERTAIN * found.noise
    if not found.sure or found.rise < max(3 * found.noise, matters):
        return None
    if late < 2 or (late < LATE and not certain):
        return None
    step = each.steps[found.at]
    how = f"the training loss rose from {number(found.bottom)} at step {int(step):,}"
    return f"{how} to {number(found.end)} at the end", step


def _jumping(view: View) -> tuple[str, float] | None:
    """Points far above those around them, again and again."""
    points = view.result.points
    pairs = zip(points.column("step"), points.column("loss"), strict=True)
    known = [(step, loss) for step, loss in pairs if math.isfinite(loss)]
    if len(known) < POINTS or not _several(view):
        return None
    found = _jumps([loss for _, loss in known], JUMP_START * abs(view.trained.start))
    if len(found) < JUMPS:
        return None
    steps, worst = [known[at][0] for at in found], max(known[at][1] for at in found)
    said = f"the training loss jumps {plural(len(found), 'time')}, to {number(worst)} at most"
    return f"{said}; first at step {int(steps[0]):,}", steps[0]


def _jumps(values: Sequence[float], least: float) -> list[int]:
    """Where values lie far above those around them, and by `least` at any rate."""
    found = []
    for at in range(3, len(values)):
        value = values[at]
        if value <= values[at - 1] or value <= values[at - 2]:  # as most are
            continue
        before = values[max(at - NEAR, 0) : at]
        if value <= max(before):
            continue
        around = [*before, *values[at + 1 : at + 1 + NEAR]]
        if value - min(around) <= least:  # quicker than their median, which is no lower
            continue
        level = median(around)
        spread = NORMAL * median(abs(other - level) for other in around)
        if value - level > max(JUMP * spread, JUMP_LEVEL * abs(level), least):
            found.append(at)
    return found


def _swinging(view: View) -> tuple[str, float] | None:
    """Up and down from stretch to stretch by a large part of what there is."""
    late = view.trained.part(0.4)
    if len(view.trained) < 2 * POINTS or view.trained.noise <= 0 or not _several(view):
        return None
    level = abs(fmean(late))
    spread = view.trained.noise
    if spread < SWINGS * level or spread < SWINGS / 4 * abs(view.trained.start) or _steady(view):
        return None
    said = (
        f"the training loss swings by {percent(spread / level)} of itself from stretch to stretch"
    )
    return said, view.trained.steps[0]


def _steady(view: View) -> bool:
    """Whether evaluations agree: then weights stay, and it is the samples of a step that differ."""
    values = view.validated.values
    near = (abs(b - a) <= STEADY * max(abs(a), abs(b)) for a, b in pairwise(values))
    return len(values) > 1 and all(near)


def _several(view: View) -> bool:
    """Whether a log point stands for several samples; single ones differ by themselves."""
    return median(view.result.points.column("samples")) >= SEVERAL


def _usual_norm(view: View) -> float | None:
    norms = [n for n in view.result.points.column("grad_norm") if math.isfinite(n) and n > 0]
    return median(norms) if norms else None


def starved(view: View) -> Finding | None:
    """Steps wait for data. The first log point has the loaders' start in it."""
    import numpy as np

    points = view.result.points
    columns = (points.column(name) for name in ("step_seconds", "wait_seconds", "window"))
    steps, waits, windows = map(np.asarray, columns)
    timed = np.flatnonzero(steps > 0)[1:]
    if len(timed) < TIMED:
        return None
    late = timed[-max(len(timed) // 2, TIMED) :]
    steps, waits, windows = steps[late], np.minimum(waits[late], steps[late]), windows[late]
    with np.errstate(all="ignore"):  # a run may write any number
        seconds, waited = float((steps * windows).sum()), float((waits * windows).sum())
        share, usual = waited / seconds, float(np.median(waits / steps))
    if min(share, usual) < worth_a_word(view.plan) or waited < STARVED_SECONDS:
        return None
    return Finding(
        "starved",
        f"{percent(share)} of the time goes by waiting for data"
        f" ({plural(view.plan.loader.workers, 'loader worker')})",
        *advice.against_starving(view.plan, share),
    )


def out_of_memory(view: View) -> Finding | None:
    """Memory ran out: the run cut its micro-batches finer, or ended."""
    result = view.result
    healed = [e for e in result.healed if _MEMORY.search(e.fault)]
    ended = result.stopped is not None and result.stopped.reason == "out_of_memory"
    if not healed and not ended:
        return None
    said = f"memory ran out with {view.plan.batch.micro_batch} samples at once"
    if healed:
        said += f", {plural(len(healed), 'time')}, first at step {healed[0].step:,}"
        said += f": {healed[-1].cure}"
    if ended:
        said += "; the run ended by it"
    return Finding(
        "batch_too_large",
        said,
        "fewer samples at once; accumulation keeps what a step learns from",
        advice.smaller_micro_batch(view.plan, healed),
    )
