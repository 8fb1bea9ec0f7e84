"""Trials that were made on this machine, kept so that the next plan need not try again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.schema import Record, TaskSection, Trial

MODELS, EACH = 200, 8
_WAIT_SECONDS = 5.0


class _Saved(Record):
    """The file: model -> its trials, the model that was tried last at the end."""

    schema_version: Literal[1] = 1
    models: dict[str, tuple[Trial, ...]] = Field(default_factory=dict)


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


def keep(machine: str, model: str, trials: Sequence[Trial]) -> None:
    """Keep these trials of a model, in place of earlier ones.

    At most EACH of a model, the last ones, and of MODELS models. Where nothing can be written,
    or another process writes for long, nothing is kept.
    """
    place = path(machine)
    with suppress(OSError, AutotrainError, Timeout):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock", timeout=_WAIT_SECONDS):
            try:
                models = dict(_read(place).models)
            except ValidationError:
                models = {}
            models.pop(model, None)
            models[model] = tuple(trials)[-EACH:]
            last = dict(list(models.items())[-MODELS:])
            files.write_atomic(place, _Saved(models=last).model_dump_json(indent=1))


def _read(place: Path) -> _Saved:
    """Raises ValidationError for a file that is torn or foreign."""
    try:
        return _Saved.model_validate_json(place.read_bytes())
    except OSError:
        return _Saved()
