"""The six panels of a run, as data: what is drawn, with its axes. `figures` and `page` draw it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from autotrain.rates import BANDS, is_error_rate
from autotrain.report.convergence import convergence
from autotrain.report.curves import Curve, Series, curve, plain, reach
from autotrain.report.progress import monitored
from autotrain.report.result import RunResult
from autotrain.report.text import clean, number, plural, watched_memory
from autotrain.schema import Plan

# Names of colours; what they look like is said by whoever draws.
BLUE, ORANGE, GREEN, RED, INK = "blue", "orange", "green", "red", "ink"
# From so much more than the least on, gradient norms are drawn on a logarithmic scale.
WIDE_NORMS = 30.0
MOST_NOTES = 100
# The normal distribution's 95 %.
SURE = 1.96


class Line(NamedTuple):
    """A curve with its name; `held`: each value holds until the next one."""

    name: str
    colour: str
    curve: Curve
    held: bool = False


class Level(NamedTuple):
    """A horizontal line."""

    value: float
    name: str
    colour: str


class Zone(NamedTuple):
    """A horizontal band."""

    low: float
    high: float
    name: str
    colour: str


class Note(NamedTuple):
    """What happened at a step; `line`: it is drawn from top to bottom, else a mark at the foot."""

    step: float
    text: str
    colour: str
    line: bool = False


class Panel(NamedTuple):
    """One panel. `low`, `high` and `log` are its vertical axis; `share`: percentages behind it."""

    key: str
    title: str
    lines: Sequence[Line] = ()
    levels: Sequence[Level] = ()
    zones: Sequence[Zone] = ()
    notes: Sequence[Note] = ()
    share: Line | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    empty: str = ""


def panels(result: RunResult, plan: Plan) -> list[Panel]:
    """All six, in their order. One with nothing to show says so in `empty`."""
    said = "no finite value" if result.not_finite else "nothing recorded"
    made = (each(result, plan) for each in PANELS)
    return [p if p.lines else Panel(p.key, p.title, empty=said) for p in made]


def figure(result: RunResult, name: str, scale: float = 1.0) -> tuple[Series, Series]:
    """Steps, and a figure of the log points at each."""
    steps, values = (np.array(result.points.column(key)) for key in ("step", name))
    return steps, values * scale


def _lines(*lines: Line) -> list[Line]:
    return [line for line in lines if len(line.curve.x)]


def evaluations(result: RunResult) -> tuple[Series, Series, Series]:
    """Steps, validation losses, monitored figures."""
    monitor = result.started.monitor if result.started else "loss"
    rows = [(e.step, e.loss, monitored(e, monitor)) for e in result.evaluations]
    steps, losses, figures = np.array(rows, dtype=float).reshape(-1, 3).T
    return steps, losses, figures


def _best(result: RunResult) -> list[Note]:
    if result.best is None:
        return []
    step = result.best.step
    return [Note(step, f"best: epoch {result.epoch(step):,}", GREEN, line=True)]


def _happened(result: RunResult) -> list[Note]:
    """Losses that are no number, what was mended, and where a run went on."""
    steps, losses = figure(result, "loss")
    bad = steps[~np.isfinite(losses)]
    notes = [Note(float(step), "the loss is not a finite number", RED) for step in bad]
    notes += [Note(e.step, f"mended: {clean(e.fault)}", ORANGE) for e in result.healed]
    notes += [Note(step, "resumed here", INK) for step in result.resumed]
    return notes[:MOST_NOTES]


def _losses(result: RunResult, _plan: Plan) -> Panel:
    steps, losses, _ = evaluations(result)
    lines = _lines(
        Line("training", BLUE, curve(*figure(result, "loss"))),
        Line("validation", ORANGE, plain(steps, losses)),
    )
    notes = [*_best(result), *_happened(result)]
    return Panel("loss", "Loss", lines, (), (), notes, None, *reach(_shown(lines)))


def _shown(lines: Sequence[Line]) -> Series:
    return np.concatenate([line.curve.shown for line in lines]) if lines else np.array([])


def _rates(result: RunResult, _plan: Plan) -> Panel:
    lines = _lines(Line("learning rate", BLUE, plain(*figure(result, "lr"))))
    top = float(_shown(lines).max()) * 1.1 if lines else 1.0
    return Panel("lr", "Learning rate", lines, high=top or 1.0)


def _gradients(result: RunResult, plan: Plan) -> Panel:
    lines = _lines(Line("gradient norm", BLUE, curve(*figure(result, "grad_norm"))))
    shown, clip, levels = _shown(lines), plan.optimizer.clip_norm, []
    if len(shown) and clip is not None and clip < 3 * shown.max():
        levels = [Level(clip, f"cut at {clip:g}", ORANGE)]
        shown = np.append(shown, clip)
    axis = reach(shown, wide=WIDE_NORMS)
    return Panel("gradients", "Gradient norm", lines, levels, (), (), None, *axis)


def _memory(result: RunResult, plan: Plan) -> Panel:
    said, budget = watched_memory(plan), plan.memory.budget_bytes
    unit, scale = ("GiB", 2**-30) if said.high >= 2**30 else ("MiB", 2**-20)
    lines = _lines(
        Line("now", BLUE, plain(*figure(result, "device_bytes", scale))),
        Line("peak", INK, plain(*figure(result, "peak_bytes", scale))),
    )
    zone = Zone(said.low * scale, said.high * scale, "predicted peak", GREEN)
    levels = [Level(said.expected * scale, "", GREEN)]
    top = max(said.high * scale, float(_shown(lines).max()) if lines else 0.0)
    if budget * scale < 1.5 * top:
        levels.append(Level(budget * scale, "budget", RED))
        top = max(top, budget * scale)
    title = f"Memory ({unit})"
    return Panel("memory", title, lines, levels, (zone,), high=top * 1.15)


def _throughput(result: RunResult, _plan: Plan) -> Panel:
    steps, seconds = figure(result, "step_seconds")
    _, samples = figure(result, "samples")
    _, waits = figure(result, "wait_seconds")
    _, windows = figure(result, "window")
    timed = seconds > 0
    steps, seconds, waits = steps[timed], seconds[timed], waits[timed]
    rates = curve(steps, samples[timed] / (seconds * windows[timed])).bare()
    lines = _lines(Line("samples a second", BLUE, rates))
    shares = curve(steps, np.clip(100 * waits / seconds, 0, 100)).bare()
    top = float(rates.y.max()) * 1.35 if len(rates.y) else 1.0
    title = "Samples a second, time waiting for data"
    share = Line("waiting for data", ORANGE, shares)
    return Panel("throughput", title, lines, share=share, high=top or 1.0)


def _metric(result: RunResult, _plan: Plan) -> Panel:
    """The monitored figure, the best so far, and what its values mean."""
    monitor = result.started.monitor if result.started else "loss"
    better = result.started.better if result.started else "lower"
    steps, _, figures = evaluations(result)
    kept = np.isfinite(figures)
    steps, figures = steps[kept], figures[kept]
    best = (np.minimum if better == "lower" else np.maximum).accumulate(figures)
    lines = _lines(
        Line("best so far", GREEN, plain(steps, best), held=True),
        Line("each evaluation", ORANGE, plain(steps, figures)),
    )
    low, high, log = reach(figures, wide=math.inf)
    zones = _bands(monitor, result)
    if is_error_rate(monitor):
        low, high = 0.0, max(high, 0.2)
    zones = [z for z in zones if z.low < high and z.high > low]
    notes = []
    if result.best is not None and math.isfinite(result.best.value):
        text = f"best {number(result.best.value)}"
        notes = [Note(result.best.step, text, GREEN, line=True)]
    if (way := convergence(result)) is not None and result.started is not None:
        step = min(way.most_epoch * result.started.steps_per_epoch, result.steps)
        notes.append(Note(step, f"90 % of the gain: epoch {way.most_epoch:,}", INK, line=True))
    name = "validation loss" if monitor == "loss" else clean(monitor)
    name = name.upper() if is_error_rate(name) else f"{name[:1].upper()}{name[1:]}"
    title = f"{name} ({better} is better)"
    return Panel("metric", title, lines, (), zones, notes, None, low, high, log)


def _bands(monitor: str, result: RunResult) -> list[Zone]:
    """Of an error rate what its values are good for; of another rate how sure the best one is."""
    if is_error_rate(monitor):
        edges = [0.0, *(band.most for band in BANDS)]
        colours = (GREEN, GREEN, ORANGE, RED, RED)
        pairs = zip(edges, BANDS, colours, strict=False)
        return [Zone(low, band.most, band.name, colour) for low, band, colour in pairs]
    best, count = result.best, result.started.valid_count if result.started else 0
    if best is None or best.metric == "loss" or not count or not 0 <= best.value <= 1:
        return []
    half = SURE * math.sqrt(max(best.value * (1 - best.value), 0.25 / count) / count)
    name = f"95 % of chance, of {plural(count, 'sample')}"
    return [Zone(max(best.value - half, 0.0), min(best.value + half, 1.0), name, GREEN)]


PANELS: Sequence[Callable[[RunResult, Plan], Panel]] = (
    _losses,
    _rates,
    _gradients,
    _memory,
    _throughput,
    _metric,
)
