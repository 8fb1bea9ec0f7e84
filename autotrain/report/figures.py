"""`report.png`: a run in six panels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from autotrain.files import write_atomic
from autotrain.report.lines import STOPS
from autotrain.report.panels import GRID, INK, PANELS, SOFT
from autotrain.report.result import RunResult
from autotrain.report.text import plural, shorten
from autotrain.schema import Plan
from autotrain.units import seconds_text

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
        for ax, panel in zip(axes.flat, PANELS, strict=True):
            panel(ax, result, plan)
        out = io.BytesIO()
        figure.savefig(out, format="png")
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
