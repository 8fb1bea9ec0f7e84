"""Weights from somebody else's file, as tensors by name; nothing that the file holds is run.

`.safetensors` is read here, sizes first. Anything else is a pickle: a child process with limits
opens it and hands back safetensors (see `unpickling`).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil
import torch

from autotrain.child import Silence, ask
from autotrain.errors import AutotrainError, one_line
from autotrain.files import open_regular
from autotrain.foreign.unpickling import MODULE, RefusedError, Tensors, Wanted
from autotrain.units import bytes_text

SAFE, PICKLED = ".safetensors", (".pt", ".pth", ".bin", ".ckpt")
HEADER_LIMIT_BYTES = 32 << 20
# torch packs nothing: entries that claim more than the file holds are not its own.
PACKED_RATIO, PACKED_BYTES = 2, 1 << 20
START_SECONDS, CPU_SECONDS, BYTES_PER_SECOND = 60.0, 30.0, 50 << 20
CHUNK_BYTES = 16 << 20
_HINT = 'torch.save(model.state_dict(), FILE), or better safetensors: save_file({...}, "FILE")'


@dataclass(frozen=True)
class Foreign:
    """The tensors of a file by their names in it, and the file's SHA-256."""

    path: Path
    sha256: str
    tensors: dict[str, torch.Tensor]


def read(path: Path) -> Foreign:
    """The weights of a .safetensors file, or of one that torch saved.

    Raises AutotrainError, naming the file, where it is none, torn, holds code, or claims more
    than it can hold.
    """
    try:
        with open_regular(path) as file:
            _insist_on_room(file)
            if path.suffix.lower() == SAFE:
                return _safe(path, file)
            if path.suffix.lower() in PICKLED:
                return _pickled(path, file)
        raise RefusedError(f"of none of the kinds {', '.join((SAFE, *PICKLED))}")
    except RefusedError as refused:
        why, hint = str(refused), _HINT
    except OSError as error:
        why, hint = error.strerror or str(error), "name a file that holds weights"
    except MemoryError:
        why, hint = "it takes more memory than there is", "free some memory"
    raise AutotrainError(f"{path}: no weights can be read from it ({one_line(why)})", hint)


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _insist_on_room(file: BinaryIO) -> None:
    need, free = 2 * _size(file), psutil.virtual_memory().available
    if need > free:
        raise RefusedError(f"{bytes_text(need)} of RAM are needed for it, {bytes_text(free)} free")


def _safe(path: Path, file: BinaryIO) -> Foreign:
    """Read whole: a file that is mapped, and cut short meanwhile, would end this process."""
    from safetensors.torch import load

    size = _size(file)
    claimed = int.from_bytes(file.read(8), "little")
    if size < 8 or claimed > min(size - 8, HEADER_LIMIT_BYTES):
        raise RefusedError(
            f"its header claims {bytes_text(claimed)}, the file has {bytes_text(size)}"
        )
    file.seek(0)
    raw = file.read()
    try:
        tensors = load(raw)
    except KeyError as kind:
        raise RefusedError(f"tensors of {kind}, which torch does not know") from None
    except Exception as error:  # safetensors' own error has no other base
        raise RefusedError(_first_line(error)) from None
    if not tensors:
        raise RefusedError("no tensors in it")
    aliases = _aliases(raw[8 : 8 + claimed])
    ties = {name: tensors[one] for name, one in aliases.items() if one in tensors}
    tensors = {**ties, **tensors}
    return Foreign(path, hashlib.sha256(raw).hexdigest(), tensors)


def _aliases(header: bytes) -> dict[str, str]:
    """What `save_model` and the child write of tied weights: other names of the same tensor."""
    said = json.loads(header).get("__metadata__")
    return said if isinstance(said, dict) else {}


def _pickled(path: Path, file: BinaryIO) -> Foreign:
    size = max(_size(file), _unpacked(file))
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    seconds = CPU_SECONDS + size / BYTES_PER_SECOND
    patience = START_SECONDS + 2 * seconds
    with tempfile.TemporaryDirectory(prefix="autotrain-") as folder:  # for this user alone
        safe = Path(folder) / "weights.safetensors"
        wanted = Wanted(file=str(path.absolute()), into=str(safe), bytes=size, seconds=seconds)
        said = ask(MODULE, wanted, Tensors, seconds=patience, most_bytes=wanted.most_bytes)
        if isinstance(said, Silence):
            raise RefusedError(f"the process that opened it: {said.message}")
        if said.problem is not None:
            raise RefusedError(said.problem)
        with open_regular(safe) as converted:
            tensors = _safe(path, converted).tensors
    return Foreign(path, digest.hexdigest(), tensors)


def _unpacked(file: BinaryIO) -> int:
    """What the entries of torch's zip claim to hold; 0 of an older file, which is none.

    Raises RefusedError where it is far more than is there.
    """
    size = _size(file)
    if file.read(4) != b"PK\3\4":
        return 0
    try:
        with zipfile.ZipFile(file) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # zipfile raises nearly anything on broken input
        raise RefusedError(f"a torn archive: {_first_line(error)}") from None
    if claimed > PACKED_RATIO * size + PACKED_BYTES:
        raise RefusedError(
            f"a bomb: its entries claim {bytes_text(claimed)}, the file has {bytes_text(size)}"
        )
    return claimed


def _first_line(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
