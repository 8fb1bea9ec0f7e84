"""Runs that ended on this machine: predicted beside measured, kept for the next plan."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.schema import PositiveFloat, Record, Trial

RUNS, EACH = 200, 8
_WAIT_SECONDS = 5.0


class RunRecord(Record):
    """One session of a run. `key` is what it is valid for (`trials.key`), `trial` what it measured.

    `predicted` and `measured` are for a person: keys of the plan, bytes and seconds; `measured`
    also holds what was not predicted by itself. `passed_over` says why its times do not count,
    where they do not.
    """

    key: str
    model: str
    ended: PositiveFloat
    steps: int
    trial: Trial
    predicted: dict[str, float] = Field(default_factory=dict)
    measured: dict[str, float] = Field(default_factory=dict)
    passed_over: str = ""


class _Saved(Record):
    """The file: runs in the order in which they ended."""

    schema_version: Literal[1] = 1
    runs: tuple[RunRecord, ...] = ()


def path(machine: str) -> Path:
    """`runs-<machine>.json` in the cache folder; delete it to forget. `machine`: its digest."""
    return files.cache_directory() / f"runs-{machine[:16]}.json"


def recall(machine: str) -> tuple[tuple[RunRecord, ...], str]:
    """The runs kept of this machine, the last one at the end, and what is wrong with the file."""
    try:
        return _read(path(machine)).runs, ""
    except ValidationError:
        return (), f"{path(machine)}: not what autotrain keeps of runs: ignored"


def keep(machine: str, record: RunRecord) -> str:
    """Keep one more run: the last EACH of a model, and RUNS in all.

    Returns what was wrong with the file before, which is then replaced. Where nothing can be
    written, or another process writes for long, nothing is kept.
    """
    place, fault = path(machine), ""
    with suppress(OSError, AutotrainError, Timeout):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock", timeout=_WAIT_SECONDS):
            before, fault = recall(machine)
            runs = _bounded((*before, record))
            files.write_atomic(place, _Saved(runs=runs).model_dump_json(indent=1))
    return fault


def _bounded(runs: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    later: Counter[str] = Counter()
    kept: list[RunRecord] = []
    for run in reversed(runs):
        later[run.key] += 1
        if later[run.key] <= EACH and len(kept) < RUNS:
            kept.append(run)
    return tuple(reversed(kept))


def _read(place: Path) -> _Saved:
    """Raises ValidationError for a file that is torn or foreign."""
    try:
        return _Saved.model_validate_json(place.read_bytes())
    except OSError:
        return _Saved()
