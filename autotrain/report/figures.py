"""`report.png`: a run in six panels."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from autotrain.files import write_atomic
from autotrain.report.lines import STOPS
from autotrain.report.panels import Line, Note, Panel, panels
from autotrain.report.result import RunResult
from autotrain.report.text import number, plural, shorten
from autotrain.schema import Plan
from autotrain.units import count_text, seconds_text

INK, SOFT, GRID = "#1f2933", "#6b7785", "#e6e9ed"
BLUE, ORANGE, GREEN, RED = "#2f6fdb", "#e07b39", "#2c9c69", "#c94f4f"
COLOURS = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "red": RED, "ink": INK}
DASHED = {"linewidth": 1.2, "linestyle": (0, (4, 3))}
# A curve of no more points than these shows them.
MARKED = 30
INCHES, DPI = (16, 10), 100
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titley": 1.0,  # where it would be found to be best, by measuring all texts twice
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def write_png(result: RunResult, plan: Plan, path: Path) -> None:
    """Write the picture, 1600 x 1000 pixels, whole or not at all.

    Raises AutotrainError when the folder is missing, full or not writable.
    """
    write_atomic(path, png(result, plan))


def png(result: RunResult, plan: Plan) -> bytes:
    """The picture; its panels say so where a run has nothing to show."""
    import warnings

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**matplotlib.rcParamsDefault, **STYLE}
    del style["backend"]  # a user's own choice, and rc_context would not give it back
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 3)
        figure.subplots_adjust(0.05, 0.07, 0.955, 0.84, wspace=0.24, hspace=0.36)
        _header(figure, result, plan)
        for ax, panel in zip(axes.flat, panels(result, plan), strict=True):
            _draw(ax, panel, result.steps)
        out = io.BytesIO()
        figure.savefig(out, format="png", pil_kwargs={"compress_level": 3})
    return out.getvalue()


def _header(figure: Any, result: RunResult, plan: Plan) -> None:
    batch, optimizer = plan.batch, plan.optimizer
    device = result.started.device if result.started else plan.device.kind
    ended = STOPS[result.stopped.reason] if result.stopped else "no end recorded"
    took = f"{plural(result.steps, 'step')} in {seconds_text(result.seconds)}"
    outcome = shorten(f"{ended}: {took} on {device}", 95)
    made = (
        f"{batch.micro_batch} x {batch.accum_steps} = {batch.global_batch} samples a step, "
        f"{plan.precision.dtype}, {optimizer.name}, learning rate {optimizer.lr:.3g}, "
        f"{plan.schedule.name}"
    )
    figure.text(0.05, 0.945, shorten(plan.run.name, 80), size=20, weight="bold")
    figure.text(0.05, 0.91, outcome, size=12, color=SOFT)
    figure.text(0.955, 0.91, made, size=12, color=SOFT, ha="right")


def _draw(ax: Any, panel: Panel, steps: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_title(panel.title)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count_text(x)))
    ax.set_xlim(0, max(steps, 1) * 1.02)
    ax.tick_params(which="both", length=0)
    if panel.empty:
        ax.set_yticks([])
        ax.text(0.5, 0.5, panel.empty, transform=ax.transAxes, ha="center", color=SOFT)
        return
    _axis(ax, panel)
    for zone in panel.zones:
        ax.axhspan(zone.low, zone.high, color=COLOURS[zone.colour], alpha=0.13, linewidth=0)
    for line in panel.lines:
        _line(ax, line)
    for level in panel.levels:
        ax.axhline(level.value, color=COLOURS[level.colour], **DASHED)
        _beside(ax, level.name, level.value, COLOURS[level.colour])
    _zone_names(ax, panel)
    row = 0
    for note in panel.notes:
        _note(ax, note, steps, row)
        row += note.line
    if panel.share is not None:
        _share(ax, panel.share)
    if len(panel.lines) > 1 or panel.share is not None:
        ax.legend(loc=_free_corner(panel), ncols=2)


def _free_corner(panel: Panel) -> str:
    """A corner that no curve comes near; matplotlib's own search takes a tenth of a second.

    Notes of lines from top to bottom stand in the upper half.
    """
    corners = {"upper right": (1.0, 1.0), "lower left": (0.0, 0.0), "lower right": (1.0, 0.0)}
    if panel.share is not None:
        return "upper right"
    scale = math.log if panel.log else float
    low, high = scale(panel.low), scale(panel.high)
    points = [
        (x, (scale(y) - low) / ((high - low) or 1.0))
        for line in panel.lines
        for x, y in zip(line.curve.x[::5], line.curve.y[::5], strict=True)
    ]
    last = max(x for x, _ in points) or 1.0

    def room(corner: str) -> float:
        right, up = corners[corner]
        return float(min(abs(x / last - right) / 2 + abs(y - up) for x, y in points))

    return max(corners, key=room)


def _axis(ax: Any, panel: Panel) -> None:
    """Its range, and plain numbers along it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if panel.log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(7))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    ax.set_ylim(panel.low, panel.high)


def _line(ax: Any, line: Line) -> None:
    """With markers where there are too few points to see a curve."""
    curve, colour = line.curve, COLOURS[line.colour]
    if len(curve.raw_x):
        ax.plot(curve.raw_x, curve.raw_y, color=colour, alpha=0.25, linewidth=1)
    marker = {"marker": "o", "markersize": 4} if len(curve.x) <= MARKED and not line.held else {}
    how = {"drawstyle": "steps-post"} if line.held else marker
    ax.plot(curve.x, curve.y, color=colour, label=line.name, **how)


def _beside(ax: Any, name: str, value: float, colour: str) -> None:
    """A name at the right end of a horizontal line."""
    if name:
        ax.annotate(
            name, (0.99, value), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", color=colour, size=9,
        )  # fmt: skip


def _zone_names(ax: Any, panel: Panel) -> None:
    for zone in panel.zones:
        low, high = max(zone.low, panel.low), min(zone.high, panel.high)
        if high - low > 0.05 * (panel.high - panel.low):
            ax.annotate(
                zone.name, (0.01, low), xycoords=("axes fraction", "data"), xytext=(0, 3),
                textcoords="offset points", color=COLOURS[zone.colour], size=9,
            )  # fmt: skip


def _note(ax: Any, note: Note, steps: int, row: int) -> None:
    """A mark at the foot, or a line with its text on that row, towards the middle."""
    colour = COLOURS[note.colour]
    if not note.line:
        foot = ax.get_xaxis_transform()
        ax.plot([note.step], [0.015], marker="^", markersize=5, color=colour, transform=foot)
        return
    ax.axvline(note.step, color=colour, zorder=1, **DASHED)
    right = note.step <= steps / 2
    ax.annotate(
        note.text, (note.step, 0.88 - 0.06 * row), xycoords=("data", "axes fraction"),
        xytext=(6 if right else -6, 0), textcoords="offset points",
        ha="left" if right else "right", va="top", color=colour, size=9,
    )  # fmt: skip


def _share(ax: Any, line: Line) -> None:
    """Percentages as an area behind `ax`, on an axis of their own at the right."""
    colour, curve = COLOURS[line.colour], line.curve
    behind = ax.twinx()
    behind.fill_between(curve.x, curve.y, color=colour, alpha=0.25, linewidth=0)
    behind.set_ylim(0, 100)
    behind.set_yticks([0, 25, 50, 75, 100], [f"{y} %" for y in (0, 25, 50, 75, 100)])
    behind.grid(visible=False)
    behind.tick_params(length=0)
    ax.plot([], [], color=colour, alpha=0.4, linewidth=7, label=line.name)
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)
