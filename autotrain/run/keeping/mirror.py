"""Copies of checkpoints elsewhere: a path or a URL that fsspec knows (s3, gs, sftp, ...).

`PLACE/RUN/checkpoints/step-00001200/`: the files of a checkpoint, its manifest last, each read
back; so there too one counts if its manifest verifies. Training never waits for a copy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from autotrain import files, parsing
from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import MANIFEST, TornError
from autotrain.run.keeping.tensorfile import digest
from autotrain.schema import Plan
from autotrain.units import bytes_text

# Extras of fsspec, by the protocol they are for.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "sftp": "paramiko", "ssh": "paramiko",
             "az": "adlfs", "abfs": "adlfs"}  # fmt: skip
# A run that was told to end waits so long for the last copy; one that ends by itself, for all.
LAST_SECONDS = 20.0


@dataclass(frozen=True)
class Copied:
    """What became of a copy: the checkpoint's step, and where it lies; or why it does not."""

    step: int
    place: str
    bytes: int
    seconds: float
    failed: str = ""


class Place:
    """A folder of checkpoints on a file system that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Raises AutotrainError where that is none, or what it needs is not installed."""
        import fsspec

        self.url = url.rstrip("/")
        protocol = url.partition("://")[0] if "://" in url else "file"
        try:
            self.system, self.root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            hint = f"pip install {package}" if package else "see fsspec's documentation"
            raise AutotrainError(f"{url}: {error}", hint) from None
        except Exception as error:  # whatever a protocol's own library raises
            raise AutotrainError(f"{url}: {_said(error)}") from None

    def make(self) -> None:
        """Raises AutotrainError where nothing can be written there."""
        try:
            self.system.makedirs(f"{self.root}/checkpoints", exist_ok=True)
        except Exception as error:
            raise AutotrainError(
                f"{self.url}: {_said(error)}", "checkpoint.mirror: a place that you may write"
            ) from None

    def steps(self) -> list[int]:
        """Steps that have a manifest there, newest first."""
        folder = f"{self.root}/checkpoints"
        if not self.system.exists(folder):
            return []
        names = [entry.rstrip("/").rpartition("/")[2] for entry in self.system.ls(folder, False)]
        found = {name: step for name in names if (step := checkpoint.step_of(Path(name)))}
        whole = (n for n in found if self.system.exists(f"{folder}/{n}/{MANIFEST}"))
        return sorted((found[name] for name in whole), reverse=True)

    def put(self, path: Path) -> int:
        """Copy a checkpoint there, the manifest last; returns its bytes."""
        folder, total = f"{self.root}/checkpoints/{path.name}", 0
        listed = json.loads((path / MANIFEST).read_text())["files"]
        self.system.makedirs(folder, exist_ok=True)
        if self.system.exists(f"{folder}/{MANIFEST}"):
            self.system.rm_file(f"{folder}/{MANIFEST}")
        for name in (*listed, MANIFEST):
            self.system.put_file(str(path / name), f"{folder}/{name}")
            said = digest(path / name).sha256 if name == MANIFEST else listed[name]["sha256"]
            with self.system.open(f"{folder}/{name}", "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != said:
                    place = f"{self.url}: {path.name}/{name}"
                    raise TornError(f"{place}: read back otherwise than written")
            total += int(listed[name]["bytes"]) if name in listed else 0
        return total

    def drop(self, kept: set[int]) -> None:
        """Remove those that the run itself has removed."""
        for step in set(self.steps()) - kept:
            folder = f"{self.root}/checkpoints/{checkpoint.folder(Path(), step).name}"
            self.system.rm_file(f"{folder}/{MANIFEST}")  # from here on it counts no more
            self.system.rm(folder, recursive=True)

    def get(self, step: int, directory: Path) -> Path:
        """Fetch a checkpoint into a run's folder. Raises TornError, OSError; nothing half made."""
        target = checkpoint.folder(directory, step)
        there = f"{self.root}/checkpoints/{target.name}"
        raw = self._head(f"{there}/{MANIFEST}")
        names = _names(raw, f"{self.url}: {target.name}/{MANIFEST}")
        for name, size in names.items():
            if self.system.size(f"{there}/{name}") != size:
                raise TornError(f"{self.url}: {target.name}/{name}: not of {size} bytes")
        need = sum(names.values())
        files.make_folder(checkpoint.checkpoints(directory))
        free, said = files.room(directory)
        if need > free:
            raise AutotrainError(
                f"{directory}: free {said}; {target.name} takes {bytes_text(need)}"
            )
        temporary = target.with_name(f".{target.name}.fetched")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            for name in names:
                self.system.get_file(f"{there}/{name}", str(temporary / name))
            (temporary / MANIFEST).write_bytes(raw)
            checkpoint.verify(temporary)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return target

    def _head(self, path: str) -> bytes:
        with self.system.open(path, "rb") as file:
            found: bytes = file.read(parsing.JSON_BYTES + 1)
        return found


def _names(raw: bytes, place: str) -> dict[str, int]:
    """Name -> bytes of a checkpoint's files, as a manifest from elsewhere says."""
    try:
        listed = parsing.from_json(raw)["files"]
        sizes = {str(name): int(said["bytes"]) for name, said in listed.items()}
    except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError):
        raise TornError(f"{place}: not a manifest") from None
    strange = set(sizes) - {*checkpoint.CONTENT, checkpoint.AVERAGE}
    if strange or any(size < 0 for size in sizes.values()):
        raise TornError(f"{place}: not a manifest of schema {checkpoint.SCHEMA}")
    return sizes


def fetch(url: str, name: str, directory: Path) -> tuple[int, list[str]]:
    """The newest checkpoint there that is whole, brought into a run's folder.

    `name`: of the run, which a mirror has a folder for. Returns its step, and what is wrong with
    newer ones. Raises AutotrainError where there is none.
    """
    place = Place(url)
    try:
        found = place.steps()
        if not found:
            place = Place(f"{place.url}/{_of(name, directory)}")
            found = place.steps()
    except Exception as error:
        raise AutotrainError(f"{url}: {_said(error)}") from None
    torn: list[str] = []
    for step in found:
        if (checkpoint.folder(directory, step)).is_dir():
            return step, torn
        try:
            place.get(step, directory)
        except TornError as error:
            torn.append(error.message)
        except AutotrainError:
            raise
        except Exception as error:
            raise AutotrainError(f"{url}: {_said(error)}", "try again: nothing is lost") from None
        else:
            return step, torn
    why = f": {torn[0]}" if torn else ""
    raise AutotrainError(f"{url}: no checkpoint of {name} that is whole{why}")


class Mirror:
    """Copies what is offered, in a thread of its own; of several that wait, the newest alone."""

    def __init__(self, place: Place, directory: Path) -> None:
        self.place, self.directory = place, directory
        self._told: list[Copied] = []
        self._has_plan = False
        self._last = b""  # the manifest of what was copied last
        self._waiting: int | None = None
        self._ends = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="autotrain-mirror", daemon=True)
        self._thread.start()

    def offer(self, step: int) -> None:
        """A checkpoint that is on disk."""
        with self._changed:
            self._waiting = step
            self._changed.notify()

    def news(self) -> list[Copied]:
        """What became of copies since this was asked last."""
        with self._changed:
            told, self._told = self._told, []
        return told

    def close(self, seconds: float | None = None) -> None:
        """Wait for the copy of the last one, or so long."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ends)
                step, self._waiting = self._waiting, None
            if step is None:
                return
            copied = self._copied(step)
            with self._changed:
                if copied is not None:
                    self._told.append(copied)

    def _copied(self, step: int) -> Copied | None:
        """None: it is there, or was removed meanwhile and a newer one will be offered."""
        begun, path = perf_counter(), checkpoint.folder(self.directory, step)
        where = f"{self.place.url}/checkpoints/{path.name}"
        try:
            manifest = (path / MANIFEST).read_bytes()
            if manifest == self._last:
                return None
            size = self.place.put(path)
            self._put_plan()
            self._last = manifest
            self.place.drop({step, *checkpoint.steps(self.directory)})
        except Exception as error:
            if not path.is_dir():
                return None
            return Copied(step, where, 0, perf_counter() - begun, failed=_said(error))
        return Copied(step, where, size, perf_counter() - begun)

    def _put_plan(self) -> None:
        """The plan as it runs, for whoever goes on elsewhere."""
        plan = self.directory / "plan.toml"
        if not self._has_plan and plan.is_file():
            self.place.system.put_file(str(plan), f"{self.place.root}/plan.toml")
            self._has_plan = True


def begun(plan: Plan, directory: Path, *, resume: bool) -> Mirror:
    """The mirror that a plan names. Raises AutotrainError where nothing can be written there.

    A run that goes on is not refused for it: its place was good once, and may be so again.
    """
    root = str(plan.checkpoint.mirror).rstrip("/")
    place = Place(f"{root}/{_of(plan.run.name, directory)}")
    if not resume:
        place.make()
    return Mirror(place, directory)


def _of(name: str, directory: Path) -> str:
    """A run's own folder in a mirror; a stage, whose folder has another name, has one in it."""
    return "/".join(dict.fromkeys((name, directory.name)))


def _said(error: Exception) -> str:
    """One line of what a protocol's own library says."""
    if isinstance(error, AutotrainError):
        return error.message
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
