"""The six panels of a run's picture. Each draws on the matplotlib axes it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotrain.report.convergence import convergence
from autotrain.report.progress import monitored
from autotrain.report.result import RunResult
from autotrain.report.text import clean, number, watched_memory
from autotrain.schema import Plan
from autotrain.units import count_text

INK, SOFT, GRID = "#1f2933", "#6b7785", "#e6e9ed"
BLUE, ORANGE, GREEN, RED = "#2f6fdb", "#e07b39", "#2c9c69", "#c94f4f"
MOST_POINTS = 1500
Series = NDArray[np.float64]


def thin(x: Series, y: Series) -> tuple[Series, Series]:
    """At most `MOST_POINTS` points: means of neighbours, leaving out what is not finite."""
    kept = np.isfinite(y)
    x, y = x[kept], y[kept]
    every = math.ceil(len(x) / MOST_POINTS)
    if every <= 1:
        return x, y
    starts = np.arange(0, len(x), every)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def smooth(y: Series) -> Series:
    """A centred running mean over a fortieth of the curve."""
    half = len(y) // 80
    if half < 1:
        return y
    total = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
    means: Series = (total[high] - total[low]) / (high - low)
    return means


def _points(result: RunResult, name: str, scale: float = 1.0) -> tuple[Series, Series]:
    x = np.array([p.step for p in result.points], dtype=float)
    y = np.array([getattr(p, name) for p in result.points], dtype=float) * scale
    return thin(x, y)


def _evaluations(result: RunResult) -> tuple[Series, Series, Series]:
    """Steps, validation losses, monitored figures."""
    monitor = result.started.monitor if result.started else "loss"
    rows = [(e.step, e.loss, monitored(e, monitor)) for e in result.evaluations]
    steps, losses, figures = np.array(rows, dtype=float).reshape(-1, 3).T
    return steps, losses, figures


def _draw(ax: Any, x: Series, y: Series, color: str, label: str = "", **more: Any) -> None:
    """A line; with markers where there are too few points to see one."""
    marker = {"marker": "o", "markersize": 4} if len(x) <= 30 else {}
    ax.plot(x, y, color=color, label=label or None, **{**marker, **more})


def _frame(ax: Any, title: str, result: RunResult) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_title(title)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count_text(x)))
    ax.set_xlim(0, max(result.steps, 1) * 1.02)
    ax.tick_params(length=0)
    if not ax.has_data():
        ax.set_yticks([])
        said = "no finite value" if result.not_finite else "nothing recorded"
        ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", color=SOFT)


def _mark_best(ax: Any, result: RunResult) -> None:
    if result.best is None:
        return
    step = result.best.step
    ax.axvline(step, color=GREEN, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    right = step < 0.6 * result.steps
    ax.annotate(
        f"best: epoch {result.epoch(step):,}",
        (step, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(6 if right else -6, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        color=GREEN,
        size=10,
    )


def _losses(ax: Any, result: RunResult, _plan: Plan) -> None:
    x, y = _points(result, "loss")
    steps, losses, _ = _evaluations(result)
    if len(x):
        smoothed = smooth(y)
        if smoothed is not y:
            ax.plot(x, y, color=BLUE, alpha=0.25, linewidth=1)
        _draw(ax, x, smoothed, BLUE, "training")
    if np.isfinite(losses).any():
        _draw(ax, *thin(steps, losses), ORANGE, "validation")
    shown = np.concatenate([y, losses[np.isfinite(losses)]])
    if len(shown) and shown.min() > 0 and shown.max() > 10 * shown.min():
        _log_scale(ax)
    _frame(ax, "Loss", result)
    _mark_best(ax, result)
    if ax.has_data():
        ax.legend(loc="lower left")


def _log_scale(ax: Any) -> None:
    """Logarithmic, with plain numbers on the axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _rates(ax: Any, result: RunResult, _plan: Plan) -> None:
    from matplotlib.ticker import FuncFormatter

    x, y = _points(result, "lr")
    if len(x):
        _draw(ax, x, y, BLUE)
        ax.set_ylim(0, y.max() * 1.1 or 1)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    _frame(ax, "Learning rate", result)


def _gradients(ax: Any, result: RunResult, plan: Plan) -> None:
    x, y = _points(result, "grad_norm")
    if len(x):
        smoothed = smooth(y)
        if smoothed is not y:
            ax.plot(x, y, color=BLUE, alpha=0.25, linewidth=1)
        _draw(ax, x, smoothed, BLUE)
        clip = plan.optimizer.clip_norm
        if clip is not None and clip < 3 * y.max():
            ax.axhline(clip, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
            ax.annotate(
                f"cut at {clip:g}",
                (0.99, clip),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
                color=ORANGE,
                size=10,
            )
        if y.min() > 0 and y.max() > 30 * y.min():
            _log_scale(ax)
    _frame(ax, "Gradient norm", result)


def _memory(ax: Any, result: RunResult, plan: Plan) -> None:
    said, budget = watched_memory(plan), plan.memory.budget_bytes
    unit, scale = ("GiB", 2**-30) if said.high >= 2**30 else ("MiB", 2**-20)
    x, now = _points(result, "device_bytes", scale)
    _, peak = _points(result, "peak_bytes", scale)
    if len(x):
        ax.axhspan(said.low * scale, said.high * scale, color=GREEN, alpha=0.13, linewidth=0)
        ax.axhline(said.expected * scale, color=GREEN, linewidth=1.2, linestyle=(0, (4, 3)))
        ax.plot([], [], color=GREEN, alpha=0.4, linewidth=7, label="predicted peak")
        _draw(ax, x, now, BLUE, "now", alpha=0.55)
        _draw(ax, x, peak, INK, "peak")
        top = max(said.high * scale, float(peak.max()), float(now.max()))
        if budget * scale < 1.5 * top:
            ax.axhline(budget * scale, color=RED, linewidth=1.4, label="budget")
            top = max(top, budget * scale)
        ax.set_ylim(0, top * 1.15)
        ax.legend(loc="lower right", ncols=2)
    _frame(ax, f"Memory ({unit})", result)


def _throughput(ax: Any, result: RunResult, _plan: Plan) -> None:
    timed = [
        (p.step, p.samples / (p.step_seconds * steps), 100 * p.wait_seconds / p.step_seconds)
        for p, steps in zip(result.points, result.windows, strict=True)
        if p.step_seconds > 0
    ]
    steps, rates, waits = np.array(timed, dtype=float).reshape(-1, 3).T
    if len(steps):
        x, rate = thin(steps, rates)
        rate = smooth(rate)
        _draw(ax, x, rate, BLUE, "samples a second")
        ax.set_ylim(0, float(rate.max()) * 1.35 or 1)
        _shares(ax, *thin(steps, np.clip(waits, 0, 100)))
        ax.plot([], [], color=ORANGE, alpha=0.4, linewidth=7, label="waiting for data")
        ax.legend(loc="upper right", ncols=2)
    _frame(ax, "Samples a second, time waiting for data", result)


def _shares(ax: Any, x: Series, share: Series) -> None:
    """Percentages as an area behind `ax`, on an axis of their own at the right."""
    behind = ax.twinx()
    behind.fill_between(x, smooth(share), color=ORANGE, alpha=0.25, linewidth=0)
    behind.set_ylim(0, 100)
    behind.set_yticks([0, 25, 50, 75, 100], [f"{y} %" for y in (0, 25, 50, 75, 100)])
    behind.grid(visible=False)
    behind.tick_params(length=0)
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)


def _mark_most(ax: Any, result: RunResult) -> None:
    """Where nine tenths of what was gained had been."""
    way = convergence(result)
    if way is not None and way.most_epoch and result.started is not None:
        step = min(way.most_epoch * result.started.steps_per_epoch, result.steps)
        label = f"90 % of the gain: epoch {way.most_epoch:,}"
        ax.axvline(step, color=SOFT, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1, label=label)


def _metric(ax: Any, result: RunResult, _plan: Plan) -> None:
    """The monitored figure, and the best so far."""
    monitor = result.started.monitor if result.started else "loss"
    better = result.started.better if result.started else "lower"
    steps, _, figures = _evaluations(result)
    finite = np.isfinite(figures)
    steps, figures = steps[finite], figures[finite]
    if len(steps):
        best = (np.minimum if better == "lower" else np.maximum).accumulate(figures)
        ax.step(steps, best, color=GREEN, where="post", label="best so far")
        _draw(ax, steps, figures, ORANGE, "each evaluation", linewidth=1.2, alpha=0.8)
        if result.best is not None and math.isfinite(result.best.value):
            label = f"best {number(result.best.value)}"
            ax.plot(
                result.best.step, result.best.value, "o", color=GREEN, markersize=7, label=label
            )
        _mark_most(ax, result)
        ax.legend(loc="upper right" if better == "lower" else "lower right")
    name = "validation loss" if monitor == "loss" else clean(monitor)
    _frame(ax, f"{name[:1].upper()}{name[1:]} ({better} is better)", result)


PANELS: Sequence[Callable[[Any, RunResult, Plan], None]] = (
    _losses,
    _rates,
    _gradients,
    _memory,
    _throughput,
    _metric,
)
