"""Devices beside each other, as text: a table, a curve over micro-batches, what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from autotrain.bench.cpu_vs_gpu import HERE, Crossing, Row, base_of, crossings
from autotrain.bench.verdict import advice
from autotrain.report.bench_text import between, disturbed, page, sentences, speed, taken
from autotrain.report.text import clean
from autotrain.units import bytes_text, money_text, seconds_text


def show(rows: Sequence[Row], about: str, others: float | None, out: IO[str]) -> None:
    """Print it. `others`: the share of the cores that other programs took, if that was felt."""
    curved = [row for row in rows if row.curve]
    page(about, _table(rows), [], out)
    if curved:
        page("\nsamples a second, in micro-batches of", _curves(curved), [], out)
    texts = [*_lost(rows), *_wins(rows), *_notes(rows), *_beside(others), advice(rows)]
    sentences(texts, out)


def _table(rows: Sequence[Row]) -> list[list[str]]:
    able = [row for row in rows if row.run_seconds is not None]
    said = dict(_COLUMNS)
    if all(row.cost is None for row in able):
        del said["cost"]
    lines = [["device", "how", *said]]
    for row in rows:
        known = row.run_seconds is not None
        cells = [cell(row) if known else "-" for cell in said.values()]
        lines.append([title(row), row.source, *cells])
    return lines


def title(row: Row) -> str:
    """`EPYC 9B45, here`, or the machine's name."""
    return f"{clean(row.device)}, here" if row.machine == HERE else clean(row.machine)


def _batch(row: Row) -> str:
    return f"{row.micro_batch} x {row.accum_steps}"


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "batch": _batch,
    "precision": lambda row: row.dtype,
    "samples a second": lambda row: between(speed, row.samples_per_second),
    "memory": lambda row: between(bytes_text, row.memory_bytes),
    "the run": lambda row: between(seconds_text, row.run_seconds),
    "cost": lambda row: between(lambda x: money_text(x, row.currency), row.cost),
}


def _curves(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each size, a column for each device."""
    points = [{p.micro_batch: p.samples_per_second for p in row.curve} for row in rows]
    sizes = sorted({size for known in points for size in known})
    lines = [["", *(f"{title(row)} ({row.source})" for row in rows)]]
    for size in sizes:
        lines.append([str(size), *(between(speed, known.get(size)) for known in points)])
    return lines


def _lost(rows: Sequence[Row]) -> list[str]:
    """Why a device has no figures."""
    return [
        f"{title(row)}: {row.why}{f'; {row.remedy}' if row.remedy else ''}"
        for row in rows
        if row.why
    ]


def _wins(rows: Sequence[Row]) -> list[str]:
    """From which micro_batch on each GPU is faster than the CPU."""
    base = base_of(rows)
    than = base.name if base is not None else ""
    return [f"{title(row)} is {_faster(crossed, than)}" for row, crossed in crossings(rows)]


def _faster(crossed: Crossing, than: str) -> str:
    start, sure = crossed.expected, crossed.sure
    if start is None:
        return f"at no micro_batch up to {crossed.most} faster than {than}"
    where = f"from micro_batch {start} on"
    if start == crossed.least:
        where = f"at every micro_batch from {start} to {crossed.most}"
    doubt = {None: "though nowhere surely", start: "surely"}.get(sure, f"surely from {sure} on")
    return f"faster than {than} {where}, {doubt}"


def _beside(others: float | None) -> list[str]:
    """What other programs did to what was measured, and to its brackets."""
    return [
        f"{said}; the brackets reach from none of them to twice as many"
        for said in disturbed(others)
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    """How the figures came about."""
    measured = [row for row in rows if row.rounds]
    found = []
    if measured:
        found.append(taken(min(row.rounds for row in measured), measured[0].processes))
    predicted = [row for row in rows if row.source == "predicted" and row.run_seconds]
    if predicted:
        unchecked = "; those of GPUs have not been checked on a GPU of ours yet"
        found.append(
            "predicted: in brackets is where 95 of 100 such figures should lie"
            + (unchecked if any(row.kind != "cpu" for row in predicted) else "")
        )
    if measured:
        found.append(
            "a whole run is put together from its step and from what evaluations and saves are "
            "predicted to take, on measured devices too"
        )
    if all(row.kind == "cpu" for row in rows if row.machine == HERE):
        others = any(row.kind != "cpu" for row in rows)
        rest = ": what is said of GPUs is predicted" if others else ""
        found.append(f"no GPU was found here{rest}")
    return found
