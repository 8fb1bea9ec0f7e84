"""A table of a few rows: Rich's on a terminal, plain lines in a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import IO

from autotrain.report.text import clean, columns, page_width

_BRACKET = " ("


def show_table(lines: Sequence[Sequence[str]], out: IO[str]) -> None:
    """The heading, then a line for each row: the first cell at the left, the others at the right.

    On a terminal what stands in brackets at a cell's end goes on a line of its own, and a table
    that is too wide for it is turned round where that makes it narrower.
    """
    (_on_terminal if out.isatty() else _plain)(lines, out)


def wrapped(text: str) -> list[str]:
    """Lines of a sentence that stands below a table."""
    return textwrap.wrap(clean(text), page_width(), break_long_words=False, break_on_hyphens=False)


def _plain(lines: Sequence[Sequence[str]], out: IO[str]) -> None:
    print("\n".join(columns(lines)), file=out)


def _on_terminal(lines: Sequence[Sequence[str]], out: IO[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, force_terminal=True, highlight=False)
    if _width(lines) > console.width and len(lines) < len(lines[0]):
        lines = [*zip(*lines, strict=True)]  # few rows of many figures: one column each
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = max(len(line[0]) for line in lines)
    table.add_column(lines[0][0], min_width=names, no_wrap=True)
    for heading in lines[0][1:]:
        table.add_column(heading, justify="right")
    for line in lines[1:]:
        table.add_row(*(Text(cell.replace(_BRACKET, "\n(")) for cell in line))
    console.print(table)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Columns that it takes with brackets on lines of their own."""
    parts = (
        max(len(part) for cell in column for part in cell.replace(_BRACKET, "\n(").split("\n"))
        for column in zip(*lines, strict=True)
    )
    return sum(parts) + 2 * (len(lines[0]) - 1)
