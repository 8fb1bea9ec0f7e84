"""A page that lays the curves of several runs over each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autotrain.files import write_atomic
from autotrain.report import versus
from autotrain.report.curves import Curve, curve, plain, reach
from autotrain.report.page import document, section, svg, table
from autotrain.report.panels import Line, Panel, evaluations, figure
from autotrain.report.text import clean
from autotrain.report.versus import One

COLOURS = ("blue", "orange", "green", "red", "ink")


class _Kind(NamedTuple):
    key: str
    title: str
    of: Callable[[One], Curve]


def _metric(run: One) -> Curve:
    steps, _, figures = evaluations(run.result)
    return plain(steps, figures)


def _valid(run: One) -> Curve:
    steps, losses, _ = evaluations(run.result)
    return plain(steps, losses)


_KINDS = (
    _Kind("loss", "Training loss", lambda run: curve(*figure(run.result, "loss")).bare()),
    _Kind("valid", "Validation loss", _valid),
    _Kind("metric", "The monitored figure", _metric),
    _Kind("lr", "Learning rate", lambda run: plain(*figure(run.result, "lr"))),
    _Kind("gradients", "Gradient norm",
          lambda run: curve(*figure(run.result, "grad_norm")).bare()),
    _Kind("step", "Seconds a step", lambda run: curve(*figure(run.result, "step_seconds")).bare()),
)  # fmt: skip


def write_html(runs: Sequence[One], path: Path) -> None:
    """Write the page, whole or not at all. Raises AutotrainError where it cannot be written."""
    write_atomic(path, html(runs))


def html(runs: Sequence[One]) -> str:
    """The page; of more runs than there are colours the first ones are drawn."""
    steps = max(1, *(run.result.steps for run in runs))
    shown = [_panel(kind, runs[: len(COLOURS)]) for kind in _KINDS]
    heads, *rows = versus.rows(runs)
    cells = [[escape(clean(cell)) for cell in row] for row in rows]
    names = ", ".join(run.name for run in runs)
    body = [
        f'<header><h1>{len(runs)} runs</h1><p class="soft">{escape(clean(names))}</p></header>',
        section("What they came to", table(("*run", *heads[1:-1], "*diagnosis"), cells)),
        section("What differs", _differences(runs)),
        section("Their curves", f"{_left_out(runs)}{svg.figures(shown, steps)}"),
    ]
    return document("runs compared", body, shown, steps, 0)


def _left_out(runs: Sequence[One]) -> str:
    """Whose curves are not there, where there are more runs than colours."""
    most, names = len(COLOURS), ", ".join(run.name for run in runs[len(COLOURS) :])
    if not names:
        return ""
    return f'<p class="soft">of the first {most} runs; not drawn: {escape(clean(names))}</p>'


def _panel(kind: _Kind, runs: Sequence[One]) -> Panel:
    found = [
        Line(clean(run.name), colour, kind.of(run))
        for run, colour in zip(runs, COLOURS, strict=False)
    ]
    lines = [line for line in found if len(line.curve.x)]
    if not lines:
        return Panel(kind.key, kind.title, empty="nothing recorded")
    low, high, log = reach(np.concatenate([line.curve.shown for line in lines]))
    return Panel(kind.key, kind.title, lines, low=low, high=high, log=log)


def _differences(runs: Sequence[One]) -> str:
    found = versus.differences(runs)
    if not found:
        return "<p>the plans are the same</p>"
    heads = ("", *(f"*{escape(clean(run.name))}" for run in runs))
    rows = [
        (escape(key), *(escape(versus.shown(key, value)) for value in values))
        for key, values in found.items()
    ]
    return table(heads, rows)
