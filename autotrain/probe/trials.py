"""Trials that were made on this machine, kept so that the next plan need not try again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.schema import Race, Record, TaskSection, Trial

MODELS, EACH = 200, 8
_WAIT_SECONDS = 5.0


class _Saved(Record):
    """The file: model -> its trials, and its last race; what was tried last stands at the end."""

    schema_version: Literal[1] = 1
    models: dict[str, tuple[Trial, ...]] = Field(default_factory=dict)
    races: dict[str, Race] = Field(default_factory=dict)


def key(model: str, dataset: str, task: TaskSection) -> str:
    """What a trial is valid for: model and data (their digests), the task's code, its options
    and the version of torch.
    """
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    parts = [model, dataset, task.sha256, dict(task.options), torch]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def path(machine: str) -> Path:
    """`trials-<machine>.json` in the cache folder; delete it to try anew. `machine`: its digest."""
    return files.cache_directory() / f"trials-{machine[:16]}.json"


def recall(machine: str, model: str) -> tuple[tuple[Trial, ...], str]:
    """The trials kept of a model (its `key`) on this machine, and what is wrong with the file."""
    try:
        saved = _read(path(machine))
    except ValidationError:
        return (), f"{path(machine)}: not what autotrain keeps of trials: ignored"
    return saved.models.get(model, ()), ""


def recall_race(machine: str, model: str) -> Race | None:
    """The race kept of a model (its `key`) on this machine."""
    try:
        return _read(path(machine)).races.get(model)
    except ValidationError:
        return None


def keep(machine: str, model: str, trials: Sequence[Trial]) -> None:
    """Keep these trials of a model, in place of earlier ones: at most EACH, the last ones.

    At most MODELS models have any. Where nothing can be written, or another process writes for
    long, nothing is kept.
    """
    _change(machine, lambda saved: {"models": _last(saved.models, model, tuple(trials)[-EACH:])})


def keep_race(machine: str, model: str, race: Race) -> None:
    """Keep this race of a model, in place of an earlier one. As `keep`."""
    _change(machine, lambda saved: {"races": _last(saved.races, model, race)})


Kept = TypeVar("Kept")


def _last(known: dict[str, Kept], model: str, value: Kept) -> dict[str, Kept]:
    others = {key: kept for key, kept in known.items() if key != model}
    return dict([*others.items(), (model, value)][-MODELS:])


def _change(machine: str, change: Callable[[_Saved], dict[str, Any]]) -> None:
    place = path(machine)
    with suppress(OSError, AutotrainError, Timeout):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock", timeout=_WAIT_SECONDS):
            try:
                saved = _read(place)
            except ValidationError:
                saved = _Saved()
            made = saved.model_copy(update=change(saved))
            files.write_atomic(place, made.model_dump_json(indent=1))


def _read(place: Path) -> _Saved:
    """Raises ValidationError for a file that is torn or foreign."""
    try:
        return _Saved.model_validate_json(place.read_bytes())
    except OSError:
        return _Saved()
