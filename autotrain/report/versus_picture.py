"""The picture of devices beside each other: speed over micro-batches, memory, time and cost."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from autotrain.bench.cpu_vs_gpu import Row, crossings
from autotrain.bench.verdict import advice
from autotrain.report.figures import BLUE, GREEN, INK, ORANGE, RED, SOFT, STYLE
from autotrain.report.text import clean, number, shorten
from autotrain.report.versus_text import title
from autotrain.schema import Prediction
from autotrain.units import bytes_text, money_text, seconds_text

INCHES, DPI = (14, 8.5), 100
_TALL = 0.72
# Bars whose lengths are further apart than that are drawn on a logarithmic scale.
WIDE = 30.0
Text = Callable[[float, Row], str]
_COLORS = (BLUE, ORANGE, GREEN, RED, "#7a57c2", "#3aa6a6", "#a3762d", "#d05c9c")


def png(rows: Sequence[Row], about: str) -> bytes:
    """The picture; a panel says so where there is nothing to show."""
    import warnings

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**matplotlib.rcParamsDefault, **STYLE}
    del style["backend"]
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure, rows, about)
        out = io.BytesIO()
        figure.savefig(out, format="png")
    return out.getvalue()


def _draw(figure: Any, rows: Sequence[Row], about: str) -> None:
    told = textwrap.fill(clean(advice(rows)), 150)
    figure.text(0.05, 0.945, shorten(about, 100), size=16, weight="bold")
    figure.text(0.05, 0.925, told, size=11, color=SOFT, va="top")
    _curves(figure.add_axes((0.07, 0.08, 0.5, _TALL)), rows)
    able = [row for row in rows if row.run_seconds is not None]
    panels = [
        ("Memory", lambda value, _: bytes_text(value), [row.memory_bytes for row in able]),
        ("Time for the run", lambda value, _: seconds_text(value),
         [row.run_seconds for row in able]),
        ("Cost of the run", lambda value, row: money_text(value, row.currency),
         [row.cost for row in able]),
    ]  # fmt: skip
    shown = [panel for panel in panels if any(each is not None for each in panel[2])]
    height = _TALL / max(len(shown), 1)
    for place, panel in enumerate(shown):
        bottom = 0.08 + _TALL - (place + 1) * height
        _bars(figure.add_axes((0.75, bottom, 0.2, height - 0.06)), able, *panel)


def _color(rows: Sequence[Row], row: Row) -> str:
    return _COLORS[rows.index(row) % len(_COLORS)]


def _curves(ax: Any, rows: Sequence[Row]) -> None:
    """Samples a second over micro-batches: what was measured is drawn through."""
    from matplotlib.ticker import FuncFormatter

    ax.set_title("Samples a second by micro-batch")
    ax.set_xlabel("samples in a micro-batch")
    for row in rows:
        if not row.curve:
            continue
        color, measured = _color(rows, row), row.source == "measured"
        x = [point.micro_batch for point in row.curve]
        speeds = [point.samples_per_second for point in row.curve]
        ax.fill_between(
            x, [s.low for s in speeds], [s.high for s in speeds], color=color,
            alpha=0.2 if measured else 0.1, linewidth=0,
        )  # fmt: skip
        ax.plot(
            x, [s.expected for s in speeds], color=color, marker="o" if measured else None,
            markersize=5, linestyle="-" if measured else (0, (4, 3)),
            label=f"{shorten(title(row), 34)}, {row.source}",
        )  # fmt: skip
    if not ax.has_data():
        ax.text(0.5, 0.5, "nothing measured or predicted", ha="center", color=SOFT)
        return
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.tick_params(length=0, which="both")
    _mark_crossings(ax, rows)
    ax.legend(loc="upper left")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** (0.07 * len(rows)))  # room for the legend


def _mark_crossings(ax: Any, rows: Sequence[Row]) -> None:
    """Where a GPU starts to win."""
    for row, found in crossings(rows):
        if found.expected in (None, found.least):
            continue
        ax.axvline(found.expected, color=_color(rows, row), linewidth=1, linestyle=(0, (1, 2)))
        ax.annotate(
            f"from {found.expected} on",
            (found.expected, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=_color(rows, row),
            size=10,
        )


def _bars(
    ax: Any, rows: Sequence[Row], heading: str, text: Text, figures: Sequence[Prediction | None]
) -> None:
    """A bar a device, hatched where it is predicted, with its interval."""
    known = [said for said in figures if said is not None]
    least, most = min(s.low for s in known), max(s.high for s in known)
    wide = least > 0 and most > WIDE * min(s.expected for s in known)
    ax.set_title(f"{heading} (log scale)" if wide else heading)
    if wide:
        ax.set_xscale("log")
    start = least / 2 if wide else 0.0
    for place, (row, said) in enumerate(zip(rows, figures, strict=True)):
        measured, color = row.source == "measured", _color(rows, row)
        if said is None:
            ax.text(0.02, place, "no price", transform=ax.get_yaxis_transform(), color=SOFT,
                    size=10, va="center")  # fmt: skip
            continue
        ax.barh(
            place, said.expected - start, left=start, height=0.6, edgecolor=color, linewidth=1,
            color=color if measured else "white", hatch=None if measured else "///",
        )  # fmt: skip
        ax.plot([said.low, said.high], [place, place], color=INK, linewidth=1.2)
        ax.annotate(
            text(said.expected, row), (said.high, place), xytext=(5, 0),
            textcoords="offset points", va="center", size=10, color=INK,
        )  # fmt: skip
    names = [f"{shorten(title(row), 24)}\n{row.source}" for row in rows]
    ax.set_yticks(range(len(rows)), names, size=9)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(start, most * (most / start) ** 0.35 if wide else most * 1.35)
    ax.set_xticks([], [])
    ax.set_xticks([], [], minor=True)
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(length=0)
