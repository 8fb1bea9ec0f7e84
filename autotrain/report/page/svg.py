"""A panel as SVG, readable without a script, and its figures for the script that shows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from autotrain.report.curves import ticks
from autotrain.report.panels import Line, Panel
from autotrain.report.text import number
from autotrain.units import count_text

# In units of the drawing, which is about as wide as a phone: text keeps its size there.
WIDTH, HEIGHT = 360, 224
LEFT, TOP, RIGHT, BOTTOM = 46, 10, 350, 192
RIGHT_OF_SHARE = 318
# No character of a number is wider, in the widest of common fonts; lines of text lie so far apart.
CHARACTER, ROW = 6.8, 14
MARKED = 30
Place = Callable[[float], float]


def box(panel: Panel) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what curves are drawn in; left of it the numbers fit."""
    longest = max((len(number(y)) for y in _marks(panel)), default=0)
    left = max(LEFT, math.ceil(longest * CHARACTER) + 6)
    return left, TOP, RIGHT_OF_SHARE if panel.share else RIGHT, BOTTOM


def _marks(panel: Panel) -> list[float]:
    return [] if panel.empty else ticks(panel.low, panel.high, log=panel.log)


def figures(shown: Iterable[Panel], steps: int) -> str:
    """All of them, beside and below each other as there is room."""
    return f'<div class="charts">{"".join(figure(panel, steps) for panel in shown)}</div>'


def figure(panel: Panel, steps: int) -> str:
    """The whole figure: its title, a legend where there is something to tell apart, the drawing."""
    lines = [*panel.lines, *([panel.share] if panel.share else [])]
    legend = "".join(
        f'<button class="{line.colour}" data-line="{n}" aria-pressed="true">{escape(line.name)}'
        "</button>"
        for n, line in enumerate(lines)
        if len(lines) > 1
    )
    return (
        f'<figure data-key="{panel.key}"><figcaption>{escape(panel.title)}</figcaption>'
        f'<div class="legend">{legend}</div>{_drawing(panel, lines, steps)}'
        '<div class="readout"></div></figure>'
    )


def data(panel: Panel) -> dict[str, Any]:
    """What the script shows where a pointer is; see page.js."""
    lines = [_data(line, share=False) for line in panel.lines]
    lines += [_data(panel.share, share=True)] if panel.share else []
    return {
        "key": panel.key,
        "box": box(panel),
        "y": [_short(panel.low), _short(panel.high)],
        "log": panel.log,
        "lines": lines,
        "notes": [{"x": note.step, "text": note.text} for note in panel.notes],
    }


def _data(line: Line, *, share: bool) -> dict[str, Any]:
    return {
        "name": line.name,
        "colour": line.colour,
        "held": line.held,
        "share": share,
        "x": [_short(x, 7) for x in line.curve.x],
        "y": [_short(y) for y in line.curve.y],
    }


def _short(value: float, digits: int = 5) -> float:
    return float(f"{value:.{digits}g}")


def _drawing(panel: Panel, lines: Sequence[Line], steps: int) -> str:
    left, top, right, bottom = box(panel)
    across: Place = lambda x: left + (right - left) * x / max(steps, 1)  # noqa: E731
    down, down_share = _down(panel), _down(Panel("", "", high=100.0))
    parts = [_steps(across, steps)]
    if panel.empty:
        middle = f'x="{(left + right) / 2:.0f}" y="{(top + bottom) / 2:.0f}"'
        parts.append(f'<text {middle} text-anchor="middle">{escape(panel.empty)}</text>')
    else:
        parts += [_heights(panel, down), _zones(panel, down)]
        drawn = [_line(n, line, across, down) for n, line in enumerate(panel.lines)]
        if panel.share:
            drawn.append(_area(len(drawn), panel.share, across, down_share))
        parts += [*reversed(drawn), _levels(panel, down), _notes(panel, across)]
        parts += [_percents(down_share)] if panel.share else []
    said = escape(f"{panel.title}: {', '.join(line.name for line in lines) or panel.empty}")
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{said}">{"".join(parts)}</svg>'
    )


def _down(panel: Panel) -> Place:
    """Where a value lies from the top; what is off the axis lies at its edge."""
    scale = math.log if panel.log else float
    low, high = scale(panel.low), scale(panel.high)

    def down(value: float) -> float:
        if panel.log and value <= 0:
            return float(BOTTOM)
        part = (scale(value) - low) / ((high - low) or 1.0)
        return BOTTOM - (BOTTOM - TOP) * min(max(part, 0.0), 1.0)

    return down


def _steps(across: Place, steps: int) -> str:
    marks = [x for x in ticks(0, max(steps, 1), log=False, most=5) if x == int(x)]
    texts = []
    for x in marks:
        said = count_text(x)
        at = min(across(x), WIDTH - len(said) * CHARACTER / 2)
        texts.append(f'<text x="{at:.1f}" y="{BOTTOM + 16}" text-anchor="middle">{said}</text>')
    name = f'<text x="{across(steps):.1f}" y="{HEIGHT - 3}" text-anchor="end">step</text>'
    return "".join(texts) + name


def _heights(panel: Panel, down: Place) -> str:
    left, _, right, _ = box(panel)
    return "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>'
        f'<text x="{left - 5}" y="{down(y) + 4:.1f}" text-anchor="end">{escape(number(y))}</text>'
        for y in _marks(panel)
    )


def _percents(down: Place) -> str:
    return "".join(
        f'<text x="{RIGHT_OF_SHARE + 5}" y="{down(y) + 4:.1f}">{y} %</text>'
        for y in (0, 25, 50, 75, 100)
    )


def _zones(panel: Panel, down: Place) -> str:
    left, _, right, _ = box(panel)
    found = []
    for zone in panel.zones:
        top, bottom = down(zone.high), down(zone.low)
        size = f'x="{left}" y="{top:.1f}" width="{right - left}" height="{bottom - top:.1f}"'
        found.append(f'<rect class="zone {zone.colour}" {size}/>')
        if bottom - top >= 12:
            at = f'x="{left + 4}" y="{bottom - 3:.1f}"'
            found.append(f'<text class="{zone.colour}" {at}>{escape(zone.name)}</text>')
    return "".join(found)


def _levels(panel: Panel, down: Place) -> str:
    left, _, right, _ = box(panel)
    found = []
    for level in panel.levels:
        y = f"{down(level.value):.1f}"
        ends = f'x1="{left}" x2="{right}" y1="{y}" y2="{y}"'
        found.append(f'<line class="dash {level.colour}" {ends}/>')
        if level.name:
            at = f'x="{right - 2}" y="{float(y) - 4:.1f}" text-anchor="end"'
            found.append(f'<text class="{level.colour}" {at}>{escape(level.name)}</text>')
    return "".join(found)


def _notes(panel: Panel, across: Place) -> str:
    """Texts of lines from top to bottom each on a row of its own, towards the middle."""
    left, _, right, _ = box(panel)
    found: list[str] = []
    row = TOP + 10
    for note in panel.notes:
        x = across(note.step)
        told = f"<title>{escape(note.text)}</title>"
        if not note.line:
            foot = f"M{x:.1f} {BOTTOM - 8}l4 7h-8z"
            found.append(f'<path class="dot {note.colour}" d="{foot}">{told}</path>')
            continue
        before = x > (left + right) / 2
        at = f'x="{x + (-5 if before else 5):.1f}" y="{row}"'
        row += ROW
        anchor = ' text-anchor="end"' if before else ""
        found.append(f'<path class="dash {note.colour}" d="M{x:.1f} {TOP}V{BOTTOM}">{told}</path>')
        found.append(f'<text class="{note.colour}" {at}{anchor}>{escape(note.text)}</text>')
    return "".join(found)


def _area(n: int, line: Line, across: Place, down: Place) -> str:
    points = _points(line, across, down)
    ends = f"V{BOTTOM}H{points[0][0]:.1f}Z" if points else ""
    return f'<g data-line="{n}"><path class="area {line.colour}" d="{_path(points)}{ends}"/></g>'


def _points(line: Line, across: Place, down: Place) -> list[tuple[float, float]]:
    return [(across(x), down(y)) for x, y in zip(line.curve.x, line.curve.y, strict=True)]


def _line(n: int, line: Line, across: Place, down: Place) -> str:
    curve, parts, points = line.curve, [], _points(line, across, down)
    if len(curve.raw_x):
        raw = ((across(x), down(y)) for x, y in zip(curve.raw_x, curve.raw_y, strict=True))
        parts.append(f'<path class="faint {line.colour}" d="{_path(raw)}"/>')
    parts.append(f'<path class="bold {line.colour}" d="{_path(points, held=line.held)}"/>')
    if len(points) <= MARKED and not line.held:
        parts += [
            f'<circle class="dot {line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
            for x, y in points
        ]
    return f'<g data-line="{n}">{"".join(parts)}</g>'


def _path(points: Iterable[tuple[float, float]], *, held: bool = False) -> str:
    """`M1.0 2.0L3.0 4.0`; with `held`, across first and then up or down."""
    found: list[str] = []
    for x, y in points:
        step = f"H{x:.1f}V{y:.1f}" if held else f"L{x:.1f} {y:.1f}"
        found.append(step if found else f"M{x:.1f} {y:.1f}")
    return "".join(found)
