"""Checkpoints: a folder per step that is there whole or not at all.

`checkpoints/step-00001200/{model,optimizer}.safetensors, state.json, manifest.json`, and
`ema.safetensors` where the run averages its weights: a whole model too, the averaged one. Written
beside its place, every file fsynced, the manifest last, verified, renamed, the parent fsynced.
No pickle: loading one imports nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from autotrain import files, parsing
from autotrain.errors import AutotrainError
from autotrain.run.keeping import shape, tensorfile
from autotrain.run.keeping.tensors import Flat

SCHEMA = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 16
MODEL, AVERAGE = "model.safetensors", "ema.safetensors"
CONTENT = (MODEL, "optimizer.safetensors", "state.json")
POINTERS = ("latest", "best", "interrupted", "emergency")
_FOLDER = re.compile(r"step-([0-9]{8,18})")
# A checkpoint or a pointer before it has its name, and a checkpoint that is being deleted.
_HALF = re.compile(rf"\.({_FOLDER.pattern}|{'|'.join(POINTERS)})\..+")


class TornError(AutotrainError):
    """A checkpoint that is not what its manifest says; the message names the file."""


@dataclass(frozen=True)
class Snapshot:
    """A copy in RAM of all that a run needs to go on. `state` is JSON-able.

    `average`: the model with averaged weights, which shares with `model` what is not averaged.
    """

    step: int
    model: Flat
    optimizer: Flat
    state: dict[str, Any]
    average: Flat | None = None

    @property
    def bytes(self) -> int:
        """What the tensors take on disk; headers and state.json come on top."""
        flats = (self.model, self.optimizer, self.average)
        return sum(tensorfile.tensor_bytes(flat.tensors) for flat in flats if flat is not None)


def checkpoints(directory: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return directory / "checkpoints"


def folder(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or will be."""
    return checkpoints(directory) / f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """The step a folder holds; None for anything that is not a checkpoint by its name."""
    found = _FOLDER.fullmatch(path.name)
    return int(found[1]) if found else None


def insist_own(directory: Path) -> None:
    """Raise AutotrainError where the checkpoints are a link: a stranger's may lead anywhere."""
    place = checkpoints(directory)
    if place.is_symlink():
        raise AutotrainError(
            f"{place}: is a link, and a run writes and deletes in its own folder only",
            "name the place as run.directory, or link that",
        )


def steps(directory: Path) -> list[int]:
    """Steps with a folder, newest first; whether they verify is another question."""
    try:
        entries = list(checkpoints(directory).iterdir())
    except OSError:
        return []
    return sorted((s for e in entries if (s := step_of(e)) is not None), reverse=True)


def save(directory: Path, snapshot: Snapshot) -> Path:
    """Write, verify and put in place. Raises OSError or TornError and leaves nothing behind."""
    target = folder(directory, snapshot.step)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        files.make_folder(checkpoints(directory))
        temporary.mkdir()
        _write(temporary, snapshot)
        verify(temporary)
        # Only a folder that failed its manifest is ever in the way: see Keeper.
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        files.sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _write(temporary: Path, snapshot: Snapshot) -> None:
    state = {
        "schema": SCHEMA,
        "step": snapshot.step,
        "run": snapshot.state,
        "model": {"aliases": snapshot.model.aliases, "rest": snapshot.model.rest},
        "optimizer": snapshot.optimizer.rest,
    }
    raw = json.dumps(state).encode()
    try:
        parsing.insist_json(raw)  # what is written can be read
    except ValueError as error:
        raise AutotrainError(f"state.json: {error}") from None
    made: tuple[Iterator[Any], ...] = (
        tensorfile.tensor_chunks(snapshot.model.tensors),
        tensorfile.tensor_chunks(snapshot.optimizer.tensors),
        iter([raw]),
    )
    contents = dict(zip(CONTENT, made, strict=True))
    if snapshot.average is not None:
        contents[AVERAGE] = tensorfile.tensor_chunks(snapshot.average.tensors)
    written = {
        name: asdict(tensorfile.write(temporary / name, chunks))
        for name, chunks in contents.items()
    }
    manifest = {"schema": SCHEMA, "step": snapshot.step, "files": written}
    tensorfile.write(temporary / MANIFEST, [_spelled(manifest)])
    files.sync_folder(temporary)


def _spelled(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode()


def verify(path: Path) -> None:
    """Return if every file has the size and SHA-256 of the manifest. Raises TornError."""
    raw, manifest = _json(path / MANIFEST)
    step = _FOLDER.search(path.name)
    known = len(raw) <= MANIFEST_BYTES and raw == _spelled(manifest)
    if not known or (step and manifest.get("step") != int(step[1])):
        raise TornError(f"{path / MANIFEST}: its content is not what was written")
    listed = manifest.get("files")
    if (
        manifest.get("schema") != SCHEMA
        or not isinstance(listed, dict)
        or set(listed) - {AVERAGE} != {*CONTENT}
    ):
        raise TornError(f"{path / MANIFEST}: not a manifest of schema {SCHEMA}")
    for name in listed:
        said = listed[name]
        try:
            size = files.regular_size(path / name)
            if size != said["bytes"]:
                raise TornError(f"{path / name}: {size} bytes, the manifest says {said['bytes']}")
            if tensorfile.digest(path / name).sha256 != said["sha256"]:
                raise TornError(f"{path / name}: its content is not what was written")
        except OSError as error:
            raise TornError(f"{path / name}: {error.strerror}") from None
        except (KeyError, TypeError):
            raise TornError(f"{path / MANIFEST}: no size and digest of {name}") from None


def load(path: Path, most: int = tensorfile.MOST_TENSORS) -> Snapshot:
    """The snapshot in a folder that has been verified. Raises TornError naming the file, and
    AutotrainError where one holds more than `most` tensors.
    """
    state = state_of(path)
    model = _tensors(path / "model.safetensors", most)
    optimizer = _tensors(path / "optimizer.safetensors", most)
    average = _tensors(path / AVERAGE, most) if (path / AVERAGE).exists() else None
    aliases, rest = state["model"]["aliases"], state["model"]["rest"]
    if strange := {*aliases.values()} - model.keys():
        raise TornError(f"{path / 'state.json'}: model.aliases: no tensor {min(strange)[:80]!r}")
    return Snapshot(
        step=state["step"],
        model=Flat(model, aliases, rest),
        optimizer=Flat(optimizer, {}, {**state["optimizer"]}),
        state=state["run"],
        average=None if average is None else Flat(average, aliases, rest),
    )


def state_of(path: Path) -> shape.File:
    """The `state.json` of a checkpoint that has been verified. Raises TornError."""
    try:
        state = shape.file(_json(path / "state.json")[1])
    except ValueError as error:
        raise TornError(f"{path / 'state.json'}: {error}") from None
    if state["step"] != step_of(path):
        raise TornError(f"{path / 'state.json'}: it is of step {state['step']}")
    return state


def _tensors(path: Path, most: int) -> dict[str, torch.Tensor]:
    try:
        return tensorfile.read_tensors(path, most)
    except OSError as error:
        raise TornError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise TornError(f"{path}: {error}") from None


def newest_good(directory: Path) -> tuple[Path | None, list[TornError]]:
    """The newest checkpoint that verifies, and what is wrong with the newer ones."""
    torn: list[TornError] = []
    for step in steps(directory):
        try:
            verify(folder(directory, step))
        except TornError as error:
            torn.append(error)
            continue
        return folder(directory, step), torn
    return None, torn


def newest_whole(
    directory: Path, among: Iterable[int], most: int = tensorfile.MOST_TENSORS
) -> tuple[Path | None, Snapshot | None, list[TornError]]:
    """The first `among` those steps that verifies and is what a checkpoint should be, what it
    holds, and what is wrong with those before it. `most`: as of `load`.
    """
    torn: list[TornError] = []
    for step in among:
        path = folder(directory, step)
        try:
            verify(path)
            return path, load(path, most), torn
        except TornError as error:
            torn.append(error)
    return None, None, torn


def sweep(directory: Path) -> None:
    """Remove what a killed run left half written, by the names that it has; only under the run's
    lock. Raises AutotrainError as `insist_own`.
    """
    insist_own(directory)
    for entry in checkpoints(directory).glob(".*"):
        if not _HALF.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _json(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A file's bytes, and what they say."""
    try:
        with files.open_regular(path) as file:
            raw = file.read(parsing.JSON_BYTES + 1)
        found = parsing.from_json(raw)
    except OSError as error:
        raise TornError(f"{path}: {error.strerror}") from None
    except parsing.TooMuchError as error:
        raise TornError(f"{path}: {error}") from None
    except ValueError:
        raise TornError(f"{path}: not valid JSON") from None
    if not isinstance(found, dict):
        raise TornError(f"{path}: not a JSON object")
    return raw, found
