"""`confusion-<split>.png`: which class is taken for which, as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from autotrain.files import write_atomic
from autotrain.report.evaluation import Confusion
from autotrain.report.figures import INK, SOFT, STYLE
from autotrain.report.text import clean

NAMED, NUMBERED = 60, 20  # classes up to which the axes have names, and cells have numbers
DPI = 100


def write_png(confusion: Confusion, title: str, path: Path) -> None:
    """Write it, whole or not at all. Raises AutotrainError where it cannot be written."""
    write_atomic(path, png(confusion, title))


def png(confusion: Confusion, title: str) -> bytes:
    """Rows are what samples are, columns what they were taken for, in shares of the row."""
    import warnings

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**matplotlib.rcParamsDefault, **STYLE, "axes.grid": False}
    del style["backend"]
    counts = np.asarray(confusion.counts, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.0 + 0.32 * len(counts), 6.0), 16.0)
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        figure = Figure(figsize=(side, side), dpi=DPI, facecolor="white", layout="tight")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        ax.set(title=clean(title), xlabel="taken for", ylabel="is")
        _names(ax, [clean(name)[:16] for name in confusion.names])
        if len(counts) <= NUMBERED:
            _numbers(ax, counts, shares)
        out = io.BytesIO()
        figure.savefig(out, format="png")
    return out.getvalue()


def _names(ax: Any, names: list[str]) -> None:
    ax.tick_params(length=0)
    if len(names) > NAMED:
        return
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)


def _numbers(ax: Any, counts: Any, shares: Any) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else INK if row == column else SOFT
            ax.text(column, row, f"{count:g}", ha="center", va="center", color=colour, size=9)
