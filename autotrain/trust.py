"""Whose code may run, and where a plan may write: what a person has named on this machine.

Who names a task file trusts it; a plan alone never does. It may write beside itself; any other
place must have been named too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import chain
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


# The settings that say where a plan writes.
DIRECTORY = "run.directory"
PLACES = (DIRECTORY, "checkpoint.mirror")


def _places_path() -> Path:
    return files.config_directory() / "places.json"


def trusted_places() -> list[str]:
    """Paths and URLs that a person has named on this machine for plans to write to."""
    found = files.read_json(_places_path())
    return [place for place in found if isinstance(place, str)] if isinstance(found, list) else []


def trust_places(places: Iterable[str], folder: Path) -> None:
    """Record places that a person named; relative ones lie in `folder`. Raises AutotrainError."""
    known = trusted_places()
    new = [where for where in (_where(place, folder) for place in places) if where not in known]
    if not new:
        return
    try:
        _places_path().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutotrainError(
            f"{_places_path().parent}: {error.strerror}", "set AUTOTRAIN_HOME to a folder of yours"
        ) from None
    files.write_atomic(_places_path(), json.dumps([*known, *new], indent=1))


def strange_places(places: Mapping[str, str | None], folder: Path) -> dict[str, str]:
    """Those that neither lie in the plan's `folder` nor were named here; nothing is recorded.

    What leads out of a run's folder by a link counts too: a stranger's folder may hold links.
    """
    known, own = trusted_places(), _where(".", folder)

    def strange(where: str, inside: str) -> bool:
        each = chain([inside], (_where(place, folder) for place in known))
        return not any(_within(where, place) for place in each)

    wanted = {key: place for key, place in places.items() if place is not None}
    found = {
        key: where
        for key, place in wanted.items()
        if strange(where := _where(place, folder), own)
        and not (key == DIRECTORY and _free_behind_link(place, folder))
    }
    run = folder / wanted[DIRECTORY] if DIRECTORY in wanted else None
    if run is not None and run.is_dir():
        inside = {f"{DIRECTORY}: {each}": _where(each.name, run) for each in _entries(run)}
        found |= {key: where for key, where in inside.items() if strange(where, _where(".", run))}
    return found


def check_places(
    places: Mapping[str, str | None], folder: Path, name: str, *, accept: bool
) -> None:
    """Raise AutotrainError unless each lies in the plan's `folder`, or was named here.

    `places`: by the key that says so. `accept`: a person names them now.
    """
    strange = strange_places(places, folder)
    if accept or not strange:
        mirror = places.get("checkpoint.mirror")  # also in the copy of the plan that a run keeps
        trust_places([*strange.values(), *([mirror] if mirror else [])], folder)
        return
    key, where = next(iter(strange.items()))
    out, instead = ("is what a link leads to", "remove the link, or ")
    if key in places:
        out, instead = "is not in the plan's folder", ""
    raise AutotrainError(
        f"{name}: {key}: {where} {out}, and nobody named it on this machine",
        f"{instead}`--trust`, if that is where it should write",
    )


def _where(place: str, folder: Path) -> str:
    """A URL, or an absolute path, links followed."""
    return place if "://" in place else os.path.realpath(os.path.join(folder, place))


def _within(where: str, place: str) -> bool:
    if "://" in where:
        return ".." not in where.split("/") and f"{where}/".startswith(f"{place.rstrip('/')}/")
    where, place = os.path.normcase(where), os.path.normcase(place)
    return where == place or where.startswith(os.path.join(place, ""))


def _free_behind_link(place: str, folder: Path) -> bool:
    """Whether a path in the folder leads out of it to a run, or to where nothing is yet.

    Such a link (`runs` on a larger disk) may be the person's own, and none of their files is there.
    """
    there = folder / place
    path, own = (os.path.normpath(os.path.abspath(each)) for each in (there, folder))
    if not _within(path, own):
        return False
    names = {each.name for each in _entries(there)} if there.is_dir() else set()
    return names <= {".lock"} or bool(names & {"plan.toml", "checkpoints"})


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise AutotrainError(
            f"{folder}: {error.strerror}", "choose a folder you may read and write"
        ) from None
