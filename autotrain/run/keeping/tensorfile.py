"""The files of a checkpoint, written through to the disk and hashed on the way.

Tensors are written in the safetensors format by hand: an error keeps its errno (the library
reports a string), the digest costs no second pass, and the same handle is fsynced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from autotrain import files
from autotrain.errors import AutotrainError

CHUNK_BYTES = 4 << 20
# More is asked of no model; a stranger's file may claim it.
HEADER_BYTES, MOST_TENSORS = 16 << 20, 100_000
# torch's dtypes as the format names them.
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


@dataclass(frozen=True)
class Written:
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """A new file, durable when this returns. Raises OSError; never fsyncs a file twice."""
    digest, count = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            count += len(chunk)
        file.flush()
        files.sync(file.fileno())
    return Written(count, digest.hexdigest())


def tensor_chunks(
    tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file of CPU tensors, largest items first.

    One that is not contiguous is copied as its turn comes. `notes`: the file's metadata.
    """
    # The format wants every tensor aligned to its item size, which this order gives for free.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, object] = {} if notes is None else {"__metadata__": {**notes}}
    offset = 0
    for name, value in ordered:
        end = offset + value.numel() * value.element_size()
        if value.dtype not in NAMES:
            raise AutotrainError(f"{name}: {value.dtype} has no place in a safetensors file")
        shape = list(value.shape)
        header[name] = {"dtype": NAMES[value.dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header).encode()
    if len(raw) >= HEADER_BYTES or len(header) > MOST_TENSORS:
        raise AutotrainError(f"{len(header):,} tensors: more than are read back")
    raw += b" " * (-len(raw) % 8)
    yield len(raw).to_bytes(8, "little")
    yield raw
    for _, value in ordered:
        view = value.reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


def tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the values alone."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def read_tensors(path: Path, most: int = MOST_TENSORS) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file. Raises OSError, ValueError where it is not one, and
    AutotrainError where it has more than `most`: each takes its time, empty or not.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES:
            raise ValueError(f"its header is larger than {HEADER_BYTES >> 20} MiB")
        if file.read(length).count(b"{") > most + 1:
            raise AutotrainError(
                f"{path}: more than {most:,} tensors", "it is of another, larger model"
            )
    try:
        return load_file(path)
    except Exception as error:  # whatever it and torch say of a header that is none
        raise ValueError(str(error).partition("\n")[0][:300] or type(error).__name__) from None


def digest(path: Path) -> Written:
    """Size and SHA-256 of a file as it lies on the disk. Raises OSError."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256")
        return Written(file.tell(), found.hexdigest())
