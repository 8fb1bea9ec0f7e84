"""Whose code may run: a person who names a task file trusts it; a plan alone never does."""

from __future__ import annotations

import json
from pathlib import Path

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.schema import TaskSection
from autotrain.task import file_sha256


def _path() -> Path:
    return files.config_directory() / "trust.json"


def trusted() -> dict[str, str]:
    """SHA-256 -> path as it was when a person named it on this machine."""
    found = files.read_json(_path())
    return found if isinstance(found, dict) else {}


def trust(task_file: Path) -> str:
    """Record a task file's content as trusted here; returns its SHA-256.

    Raises AutotrainError where the file cannot be read or the record cannot be kept.
    """
    digest = file_sha256(task_file)
    known = trusted()
    if known.get(digest) != str(task_file):
        try:
            _path().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AutotrainError(
                f"{_path().parent}: {error.strerror}",
                "set AUTOTRAIN_HOME to a folder you may write",
            ) from None
        files.write_atomic(_path(), json.dumps({**known, digest: str(task_file)}, indent=1))
    return digest


def task_path(task: TaskSection, plan_folder: Path) -> Path:
    """Where a plan's code lies: a shipped template's, or its file beside the plan."""
    if task.template is not None:
        return template_path(task.template)
    return plan_folder / (task.file or "")


def template_path(name: str) -> Path:
    """A shipped template's task file. Raises AutotrainError with the names there are."""
    names = files.shipped_names("templates")
    if name not in names:
        raise AutotrainError(f"no template {name!r}", f"templates: {', '.join(names)}")
    return files.shipped("templates") / name / "task.py"


def check(task: TaskSection, path: Path, *, accept: bool) -> None:
    """Raise AutotrainError unless this code is what the plan was made for and trusted here."""
    digest = file_sha256(path)
    if accept:
        trust(path)
        return
    if digest != task.sha256:
        raise AutotrainError(
            f"{path}: the code has changed since the plan was made",
            "read the change, then `--trust`, or `autotrain plan --refresh PLAN --trust`",
        )
    if task.template is None and digest not in trusted():
        raise AutotrainError(
            f"{path}: this code has not been trusted on this machine",
            "read it, then run again with `--trust`",
        )
