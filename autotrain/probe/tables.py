"""Rows and columns of Parquet and CSV tables, without reading a Parquet's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotrain.blocks.layouts.listing import File, Listing
from autotrain.blocks.layouts.rows import malformed, read_table
from autotrain.errors import AutotrainError
from autotrain.media import UnreadableError
from autotrain.probe.findings import Findings

PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class Table:
    """How many rows, and the names of the columns in order."""

    rows: int
    columns: tuple[str, ...]


def chosen(tables: Sequence[File]) -> list[File]:
    """The Parquet files where there are any, else the text tables."""
    return [file for file in tables if file.suffix == PARQUET] or [*tables]


def look_at_tables(listing: Listing, files: Sequence[File], findings: Findings) -> list[Table]:
    """Each table that can be read. A note for columns that differ from the first one's.

    Raises AutotrainError for a malformed row, naming file and line, and for a Parquet file
    without pyarrow.
    """
    found: list[Table] = []
    for file in files:
        path = listing.path(file.name)
        try:
            table = _parquet(path) if file.suffix == PARQUET else _text(path)
        except UnreadableError as problem:
            findings.cannot_read(file.name, str(problem))
            continue
        if found and table.columns != found[0].columns:
            findings.note(file.name, f"other columns than the first table's: {_named(table)}")
        if not table.rows:
            findings.note(file.name, "a table without rows")
        found.append(table)
    return found


def _named(table: Table) -> str:
    return ", ".join(table.columns[:5]) + (", ..." if len(table.columns) > 5 else "")


def _parquet(path: Path) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise AutotrainError(
            f"{path}: reading Parquet needs pyarrow, which is not installed",
            "pip install 'autotrain[table]'",
        ) from None
    try:
        metadata = parquet.read_metadata(path)
        return Table(metadata.num_rows, tuple(metadata.schema.to_arrow_schema().names))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"not a Parquet file: {str(error).splitlines()[0][:200]}") from None


def _text(path: Path) -> Table:
    header, rows = read_table(path)
    if not any(header):
        raise malformed(path, 1, "no names of columns")
    return Table(sum(1 for _ in rows), tuple(header))
