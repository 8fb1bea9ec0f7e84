"""Small helpers for what a person reads: numbers, columns, and text that is safe to print."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from autotrain.schema import CUDA_LIKE, Plan, Prediction
from autotrain.units import bytes_text, seconds_text

WIDEST, NARROWEST = 96, 60
LABEL = 12
JOINERS = "\u200c\u200d"  # not printable to Python, yet Bengali is not written without them


def page_width() -> int:
    """Columns to fill: the terminal's (COLUMNS, or the one on stdout), within reason."""
    columns = shutil.get_terminal_size((WIDEST, 24)).columns
    return max(min(columns, WIDEST), NARROWEST)


def clean(text: object) -> str:
    """One line without control characters: names and messages come from files and strangers."""
    return "".join(c if c.isprintable() or c in JOINERS else " " for c in str(text)).strip()


def number(value: float) -> str:
    """`0.123456` -> `0.1235`, `1e-05` -> `1e-05`: four significant digits."""
    plain = 1e4 <= abs(value) < 1e12
    return f"{value:,.0f}" if plain else f"{value:.4g}"


def percent(share: float) -> str:
    """`0.034` -> `3 %`; below 10 % with one digit after the point where it says more."""
    value = 100 * share
    digits = 1 if 0.05 <= abs(value) < 10 else 0
    return f"{value:.{digits}f} %" if math.isfinite(value) else "? %"


def plural(count: float, noun: str) -> str:
    """`1 step`, `1,200 steps`, `2 batches`."""
    many = noun + ("es" if noun.endswith(("s", "x", "atch")) else "s")
    return f"{count:,.0f} {noun if count == 1 else many}"


def quantity(key: str, value: float) -> str:
    """A number in the form its key asks for: `*_bytes` in GiB, `*_seconds` in min, or plain."""
    if key.endswith("bytes"):
        return bytes_text(value)
    if key.endswith("seconds"):
        return seconds_text(value) if math.isfinite(value) else str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def setting(key: str, value: Any) -> str:
    """A plan's value as a person writes it; `not set` for one that is left out."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return quantity(key, value) if key.endswith(("bytes", "seconds")) else f"{value}"
    if isinstance(value, dict):
        return ", ".join(f"{clean(k)} = {setting('', v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        pairs = bool(value) and all(isinstance(item, list | tuple) for item in value)
        shown = (f"[{setting('', item)}]" if pairs else setting("", item) for item in value)
        return ", ".join(shown)
    return f"{clean(value)[:12]}..." if key.endswith("sha256") else clean(value)


def interval(key: str, prediction: Prediction) -> str:
    """`0.9 GiB to 1.2 GiB`."""
    return f"{quantity(key, prediction.low)} to {quantity(key, prediction.high)}"


def watched_memory(plan: Plan) -> Prediction:
    """What the bytes of Step events are held against.

    They are the caching allocator's on a CUDA device, and the process's elsewhere.
    """
    said = plan.predicted
    on_gpu = plan.device.kind in CUDA_LIKE
    return said.reserved_peak_bytes if on_gpu else said.device_peak_bytes


def labelled(label: str, text: str, indent: str = "") -> str:
    """`label` in a column of its own and `text` wrapped beside it."""
    first = indent + f"{label + ' ':<{LABEL}}"
    return textwrap.fill(
        clean(text),
        width=page_width(),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def literal(label: str, text: str) -> str:
    """`label` in its column and a path or command beside it, never wrapped: people copy it."""
    return f"{label + ' ':<{LABEL}}{clean(text)}"


def shorten(text: str, width: int) -> str:
    """At most `width` characters, cut at a word, `...` where something is missing."""
    text = clean(text)
    return text if len(text) <= width else textwrap.shorten(text, width, placeholder=" ...")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines: the first column left, the others right, the last left again."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    last = len(widths) - 1

    def line(row: Iterable[str]) -> str:
        cells = (
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return [line(row) for row in rows]
