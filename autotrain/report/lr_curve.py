"""The curve of a range test, as a picture and as a table."""

from __future__ import annotations

import csv
import io
from typing import Any

from autotrain.report.figures import BLUE, GREEN, INK, RED, SOFT, STYLE
from autotrain.report.text import shorten
from autotrain.schema import RangeTest, Suggestion

INCHES, DPI = (9, 5.5), 110
# The picture ends so far above the start, counted in the depth of the fall: what explodes
# beyond would flatten the rest.
HEADROOM = 0.6


def table(test: RangeTest, found: Suggestion) -> str:
    """CSV: a line a rate; each sweep's loss before its step, and that of its batch at the start."""
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\n")
    names = [f"{what}_{i + 1}" for i in range(len(test.sweeps)) for what in ("loss", "before")]
    sheet.writerow(["rate", "learned", *names])
    for i, (rate, learned) in enumerate(zip(test.rates, found.curve, strict=False)):
        pairs = [
            cell
            for sweep in test.sweeps
            for cell in (_cell(sweep.losses, i), _cell(sweep.before, i))
        ]
        sheet.writerow([f"{rate:.6g}", f"{learned:.6g}", *pairs])
    return out.getvalue()


def _cell(values: tuple[float, ...], index: int) -> str:
    return f"{values[index]:.6g}" if index < len(values) else ""


def png(test: RangeTest, found: Suggestion) -> bytes:
    """The picture: what each sweep learned at each rate, their mean, and the suggestion."""
    import warnings

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**matplotlib.rcParamsDefault, **STYLE}
    del style["backend"]
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.simplefilter("ignore")
        figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure.add_axes((0.1, 0.12, 0.86, 0.79)), test, found)
        out = io.BytesIO()
        figure.savefig(out, format="png")
    return out.getvalue()


def _draw(ax: Any, test: RangeTest, found: Suggestion) -> None:
    ax.set_xscale("log")
    for sweep in test.sweeps:
        learned = [now - then for now, then in zip(sweep.losses, sweep.before, strict=False)]
        ax.plot(test.rates[: len(learned)], learned, color=BLUE, alpha=0.3, linewidth=0.9)
    if found.curve:
        ax.plot(test.rates[: len(found.curve)], found.curve, color=BLUE, label="mean, smoothed")
        depth = max(-min(found.curve), 1e-12)
        ax.set_ylim(-1.25 * depth, HEADROOM * depth)
    ax.axhline(0, color=SOFT, linewidth=0.8)
    if not found.why_not:
        ax.axvspan(found.low, found.high, color=GREEN, alpha=0.15, linewidth=0)
        ax.axvline(found.rate, color=GREEN, label=f"suggested {found.rate:.2g}")
        ax.axvline(found.edge, color=RED, linestyle="--", label=f"falls up to {found.edge:.2g}")
    ax.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    ax.xaxis.set_minor_formatter(lambda *_: "")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss, less that of the same batch at the start")
    title = f"{test.optimizer}, {test.samples} samples a step, {len(test.sweeps)} sweeps"
    ax.set_title(shorten(f"{title}: {found.why_not}" if found.why_not else title, 90), color=INK)
    ax.legend(loc="lower left")
