"""Runs beside each other: what they came to, and in what their plans differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from autotrain.report.diagnosis import NAMES
from autotrain.report.document import RunReport, as_json
from autotrain.report.explain import same, settings
from autotrain.report.result import RunResult
from autotrain.report.text import columns, labelled, number, setting, shorten
from autotrain.schema import Plan
from autotrain.units import bytes_text, seconds_text

# What differs by itself: names, places, and what was found out about them.
_ALWAYS = ("run.name", "run.directory", "task.sha256", "predicted.", "memory.budget_bytes")
_FOLDED = "task.options"  # each of them stands there by itself
VALUE_WIDTH = 28


class One(NamedTuple):
    """A run: what it is called here, its plan, its events folded, and its report."""

    name: str
    plan: Plan
    result: RunResult
    said: RunReport


def better(runs: Sequence[One]) -> One | None:
    """The run with the best figure; None where they were judged by different ones, or by none."""
    judged = [run for run in runs if run.said.best is not None and _value(run) is not None]
    kinds = {(run.said.best.metric if run.said.best else "", _higher(run)) for run in judged}
    if len(kinds) != 1:
        return None
    return max(judged, key=lambda run: (_value(run) or 0.0) * (1 if _higher(run) else -1))


def _value(run: One) -> float | None:
    value = run.said.best.value if run.said.best else None
    return value if value is not None and math.isfinite(value) else None


def _higher(run: One) -> bool:
    return run.result.started is not None and run.result.started.better == "higher"


def differences(runs: Sequence[One]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs: key -> its value in each, None where not set."""
    each = [settings(run.plan) for run in runs]
    keys = dict.fromkeys(key for held in each for key in held)
    found = {
        key: [held.get(key) for held in each]
        for key in keys
        if not key.startswith(_ALWAYS) and key != _FOLDED
    }
    return {k: v for k, v in found.items() if not all(same(v[0], other) for other in v[1:])}


def content(runs: Sequence[One]) -> dict[str, Any]:
    """The same for programs."""
    best = better(runs)
    return {
        "runs": [{"run": run.name, **as_json(run.said)} for run in runs],
        "differences": differences(runs),
        "best": best.name if best is not None else None,
    }


def rows(runs: Sequence[One]) -> list[list[str]]:
    """A heading, and a line for each run."""
    heads = ["run", "ended", "epochs", "best", "at epoch", "training loss", "time", "samples/s",
             "memory", "diagnosis"]  # fmt: skip
    return [heads, *(_row(run) for run in runs)]


def _row(run: One) -> list[str]:
    said, best = run.said, run.said.best
    rate, peak = said.measured.samples_per_second, _peak(run.result)
    since = said.diagnosis.findings[0].since_epoch
    verdict = NAMES[said.diagnosis.verdict]
    return [
        run.name,
        said.stopped.reason.replace("_", " ") if said.stopped else "not ended",
        f"{said.epochs}",
        f"{best.metric} {number(best.value)}" if best and best.value is not None else "-",
        f"{run.result.epoch(best.step)}" if best else "-",
        _plain(said.loss.last_epoch),
        seconds_text(said.seconds),
        f"{rate:,.3g}" if rate is not None else "-",
        bytes_text(peak) if peak else "-",
        f"{verdict} since {since}" if since is not None else verdict,
    ]


def _peak(result: RunResult) -> int | None:
    """Of the process on a CPU; on a GPU as the driver told, else of the allocator."""
    return result.device_peak_bytes or result.reserved_peak_bytes


def _plain(value: float | None) -> str:
    return number(value) if value is not None and math.isfinite(value) else "-"


def show(runs: Sequence[One], out: IO[str], width: int) -> None:
    """A table where it fits, else a block for each run; then what differs, and which is best."""
    lines = columns(rows(runs))
    if max(map(len, lines)) > width:
        lines = _blocks(rows(runs))
    print("\n".join(lines), file=out)
    print("\n" + "\n".join(_differing(runs)), file=out)
    best = better(runs)
    if best is not None and best.said.best is not None and best.said.best.value is not None:
        figure = f"{best.said.best.metric} {number(best.said.best.value)}"
        print(f"\n{labelled('best', f'{best.name}, {figure}')}", file=out)


def _blocks(table: list[list[str]]) -> list[str]:
    heads, *each = table
    lines = []
    for row in each:
        lines += [row[0]]
        lines += [f"  {head:<14}{text}" for head, text in zip(heads[1:], row[1:], strict=True)]
    return lines


def _differing(runs: Sequence[One]) -> list[str]:
    found = differences(runs)
    if not found:
        return ["the plans are the same"]
    rows = [[key, *(shown(key, value) for value in values)] for key, values in found.items()]
    return columns([["what differs", *(run.name for run in runs), ""], *([*r, ""] for r in rows)])


def shown(key: str, value: Any) -> str:
    """A setting in a column."""
    plain = isinstance(value, float) and not key.endswith(("bytes", "seconds"))
    return shorten(number(value) if plain else setting(key, value), VALUE_WIDTH)
