"""A folder of a run's checkpoints on any file system that fsspec knows: a path, s3, gs, sftp, ...

`checkpoints/step-00001200/`: the files of a checkpoint, its manifest last, each read back; so there
too one counts if its manifest verifies. `run.json` says whose folder it is, `run-2/` is one of
another run of the same name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from autotrain import files, parsing
from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import MANIFEST, TornError
from autotrain.run.keeping.tensorfile import digest
from autotrain.units import bytes_text

# Extras of fsspec, by the protocol they are for.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "sftp": "paramiko", "ssh": "paramiko",
             "az": "adlfs", "abfs": "adlfs"}  # fmt: skip
_RUN = re.compile(r"run-([1-9][0-9]{0,8})")


class Place:
    """The folder at a URL. What its file system raises is raised: to be away is not to be empty."""

    def __init__(self, url: str) -> None:
        """Raises AutotrainError where that is none, or what it needs is not installed."""
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.url = url.rstrip("/")
        protocol = url.partition("://")[0] if "://" in url else "file"
        try:
            self.system, self.root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            hint = f"pip install {package}" if package else "see fsspec's documentation"
            raise AutotrainError(f"{url}: {error}", hint) from None
        except Exception as error:  # whatever a protocol's own library raises
            raise AutotrainError(f"{url}: {said(error)}") from None
        self.here = isinstance(self.system, LocalFileSystem)

    def within(self, name: str) -> Place:
        """A folder in this one."""
        return Place(f"{self.url}/{name}")

    def make(self) -> None:
        """Raises AutotrainError where nothing can be written there."""
        try:
            self.system.makedirs(self._path(), exist_ok=True)
        except Exception as error:
            raise AutotrainError(
                f"{self.url}: {said(error)}", "checkpoint.mirror: a place that you may write"
            ) from None

    def runs(self) -> list[Place]:
        """This one, and in it those of other runs of the same name, as they began."""
        numbers = sorted(int(n[1]) for each in self._list(self.root) if (n := _RUN.fullmatch(each)))
        return [self, *(self.within(f"run-{number}") for number in numbers)]

    def another(self) -> Place:
        """One for another run of the same name."""
        last = _RUN.fullmatch(self.runs()[-1].root.rpartition("/")[2])
        return self.within(f"run-{int(last[1]) + 1 if last else 2}")

    def owner(self) -> str:
        """Whose it is; empty where nobody has said so."""
        try:
            return str(parsing.from_json(self._head(f"{self.root}/run.json"))["run"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ""

    def own(self, run: str) -> None:
        """Say whose it is."""
        self.system.makedirs(self._path(), exist_ok=True)
        self.system.pipe_file(f"{self.root}/run.json", json.dumps({"run": run}).encode())
        if self.here:
            files.sync_file(Path(self.root, "run.json"))
        self._sync(self.root)

    def folders(self) -> list[int]:
        """Steps that have a folder there, newest first: halves of copies too."""
        names = self._list(self._path())
        return sorted(s for n in names if (s := checkpoint.step_of(Path(n))) is not None)[::-1]

    def steps(self) -> list[int]:
        """Steps that have a manifest there, newest first."""
        return [s for s in self.folders() if MANIFEST in self._list(self._path(_name(s)))]

    def manifest(self, step: int) -> bytes:
        """What the manifest of a checkpoint there says."""
        return self._head(self._path(_name(step), MANIFEST))

    def put(self, path: Path) -> int:
        """Copy a checkpoint there; returns its bytes. What cannot end is removed again.

        Where that step is there already, it is of another way that a run went, and set aside.
        """
        listed = json.loads((path / MANIFEST).read_text())["files"]
        total = sum(int(each["bytes"]) for each in listed.values())
        step = checkpoint.step_of(path)
        self.set_aside(each for each in self.steps() if each == step)
        self.system.makedirs(self._path(path.name), exist_ok=True)
        try:
            if self.here:
                _insist_on_room(Path(self.root), path.name, total)
            for name in listed:
                self._put_file(path / name, listed[name]["sha256"])
            self._sync(self._path(path.name))
            self._put_file(path / MANIFEST, digest(path / MANIFEST).sha256)
            self._sync(self._path(path.name), self._path())
        except Exception:
            with suppress(Exception):  # the first error is the one to tell
                self.system.rm(self._path(path.name), recursive=True)
            raise
        return total

    def put_plan(self, raw: bytes) -> None:
        """The plan as it runs, for whoever goes on elsewhere."""
        self.system.pipe_file(f"{self.root}/plan.toml", raw)

    def plan(self) -> bytes:
        """That plan; empty where there is none."""
        try:
            return self._head(f"{self.root}/plan.toml")
        except FileNotFoundError:
            return b""

    def set_aside(self, steps: Iterable[int]) -> None:
        """Have those count no more, and lose none: they go to `aside-1`, `aside-2`, ..."""
        gone = [_name(step) for step in steps]
        if not gone:
            return
        there = self._list(self._path())
        free = (f"aside-{n}" for n in itertools.count(1) if f"aside-{n}" not in there)
        aside = self._path(next(free))
        self.system.makedirs(aside, exist_ok=True)
        for name in gone:
            try:
                self.system.mv(self._path(name), f"{aside}/{name}", recursive=True)
            except TypeError:  # sftp's renames a folder as it does a file
                self.system.mv(self._path(name), f"{aside}/{name}")

    def drop(self, steps: Iterable[int]) -> None:
        """Remove those, whole or not."""
        for step in steps:
            folder = self._path(_name(step))
            if MANIFEST in self._list(folder):
                self.system.rm_file(f"{folder}/{MANIFEST}")  # from here on it counts no more
            self.system.rm(folder, recursive=True)

    def get(self, step: int, directory: Path) -> Path:
        """Fetch a checkpoint, verified and on the disk, to beside where it will be: it has no name
        yet that counts. Raises TornError, OSError; nothing half made stays.
        """
        target = checkpoint.folder(directory, step)
        raw = self.manifest(step)
        names = _names(raw, f"{self.url}: {target.name}/{MANIFEST}")
        for name, size in names.items():
            if self.system.size(self._path(target.name, name)) != size:
                raise TornError(f"{self.url}: {target.name}/{name}: not of {size} bytes")
        files.make_folder(checkpoint.checkpoints(directory))
        _insist_on_room(directory, target.name, sum(names.values()))
        temporary = target.with_name(f".{target.name}.fetched")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            for name in names:
                self.system.get_file(self._path(target.name, name), str(temporary / name))
                files.sync_file(temporary / name)
            files.write_atomic(temporary / MANIFEST, raw)
            checkpoint.verify(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return temporary

    def _path(self, *names: str) -> str:
        return "/".join((self.root, "checkpoints", *names))

    def _list(self, folder: str) -> list[str]:
        """Names in a folder; none where it is not there, which is known and not remembered."""
        self.system.invalidate_cache()
        try:
            found = self.system.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return [entry.rstrip("/").rpartition("/")[2] for entry in found]

    def _head(self, path: str) -> bytes:
        with self.system.open(path, "rb") as file:
            found: bytes = file.read(parsing.JSON_BYTES + 1)
        return found

    def _put_file(self, path: Path, sha256: str) -> None:
        """Copy one, and read it back. Raises TornError where that is something else."""
        there = self._path(path.parent.name, path.name)
        self.system.put_file(str(path), there)
        if self.here:
            files.sync_file(Path(there))
        with self.system.open(there, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                place = f"{self.url}: {path.parent.name}/{path.name}"
                raise TornError(f"{place}: read back otherwise than written")

    def _sync(self, *folders: str) -> None:
        for folder in folders if self.here else ():
            files.sync_folder(Path(folder))


def said(error: Exception) -> str:
    """One line of what a protocol's own library says."""
    if isinstance(error, AutotrainError):
        return error.message
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _name(step: int) -> str:
    return checkpoint.folder(Path(), step).name


def _insist_on_room(folder: Path, name: str, need: int) -> None:
    free, told = files.room(folder)
    if need > free:
        raise AutotrainError(f"{folder}: free {told}; {name} takes {bytes_text(need)}")


def _names(raw: bytes, place: str) -> dict[str, int]:
    """Name -> bytes of a checkpoint's files, as a manifest from elsewhere says."""
    try:
        listed = parsing.from_json(raw)["files"]
        sizes = {str(name): int(told["bytes"]) for name, told in listed.items()}
    except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError):
        raise TornError(f"{place}: not a manifest") from None
    strange = set(sizes) - {*checkpoint.CONTENT, checkpoint.AVERAGE}
    if strange or any(size < 0 for size in sizes.values()):
        raise TornError(f"{place}: not a manifest of schema {checkpoint.SCHEMA}")
    return sizes
