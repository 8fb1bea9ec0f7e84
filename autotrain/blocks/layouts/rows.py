"""Rows of a text table, streamed; whatever is malformed is named by file and line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from autotrain.errors import AutotrainError
from autotrain.files import open_regular

LINE_LIMIT_BYTES = 1 << 20
ROW_LIMIT = 1 << 21
_FIRST_LINES, _NEARLY_ALL = 50, 0.9
Cells = tuple[int, list[str]]


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file (with a byte order mark or not), ends kept, never a huge one."""
    try:
        with open_regular(path) as file:
            yield from _decoded(path, file)
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror}", "check its permissions") from None


def _decoded(path: Path, file: BinaryIO) -> Iterator[str]:
    number = 0
    while raw := file.readline(LINE_LIMIT_BYTES):
        number += 1
        if len(raw) == LINE_LIMIT_BYTES:
            raise malformed(path, number, f"a line of over {LINE_LIMIT_BYTES >> 20} MiB")
        if b"\0" in raw:
            raise malformed(path, number, "not text: it holds a zero byte")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise malformed(path, number, "not UTF-8 text") from None


def malformed(path: Path, line: int, problem: str) -> AutotrainError:
    """The error for one bad line of a table."""
    return AutotrainError(f"{path}:{line}: {problem}", "correct this line, or remove it")


def read_rows(path: Path, delimiter: str) -> Iterator[Cells]:
    """(line, cells) of every row that is not blank.

    Commas separate cells as in a spreadsheet's CSV; with `|` and tabs quotes mean themselves.
    """
    since = 0  # characters of the row that is being read: quotes may hold any number of lines

    def counted() -> Iterator[str]:
        nonlocal since
        for line in text_lines(path):
            since += len(line)
            if since > ROW_LIMIT:
                raise malformed(
                    path, lines.line_num, f"a row of over {ROW_LIMIT >> 20} Mi characters"
                )
            yield line

    lines = csv.reader(
        counted(),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        for cells in lines:
            since = 0
            if any(cell.strip() for cell in cells):
                yield lines.line_num, cells
    except csv.Error as error:
        raise malformed(path, lines.line_num, str(error)) from None


def delimiter_of(path: Path) -> str:
    """Tab for .tsv; else of bar, tab, semicolon and comma the first that the first line has and
    nearly all of some after it, as often if there is such a one: texts have commas of their own.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    lines: list[str] = []
    with suppress(AutotrainError):  # a malformed one is told by whoever reads the rows
        lines.extend(line for line in islice(text_lines(path), _FIRST_LINES) if line.strip())
    first, most = lines[0] if lines else "", _NEARLY_ALL * len(lines)
    counts = {
        each: Counter(line.count(each) for line in lines) for each in "|\t;," if each in first
    }
    there = [each for each, found in counts.items() if len(lines) - found[0] >= most]
    even = [each for each in there if counts[each].most_common(1)[0][1] >= most]
    return next(iter([*even, *there]), max(",;\t|", key=first.count))


def read_table(path: Path) -> tuple[list[str], Iterator[Cells]]:
    """The header's names in lower case, and the rows below it, each as wide as the header."""
    rows = read_rows(path, delimiter_of(path))
    _, header = next(rows, (1, []))
    return [name.strip().lower() for name in header], _as_wide(path, len(header), rows)


def _as_wide(path: Path, width: int, rows: Iterable[Cells]) -> Iterator[Cells]:
    for line, cells in rows:
        if len(cells) != width:
            raise malformed(path, line, f"{len(cells)} columns where the header has {width}")
        yield line, cells


def column(header: list[str], *names: str) -> int | None:
    """Where the first of these names stands in the header."""
    return next((header.index(name) for name in names if name in header), None)
