"""Which other libraries a Linux library needs, read from its file: nothing is loaded."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_LOAD, _DYNAMIC = 1, 2  # elf.h: PT_LOAD, PT_DYNAMIC
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29  # DT_...
_MOST_STRING, _MOST_PARTS, _MOST_ENTRIES = 4096, 1000, 10_000


class Needs(NamedTuple):
    """Names of libraries, and the folders in which the library itself has them looked for."""

    names: tuple[str, ...]
    folders: tuple[Path, ...]


class _Part(NamedTuple):
    kind: int
    at: int  # in the file
    address: int
    size: int  # in the file


def needs(library: Path) -> Needs:
    """Raises ValueError for what is no 64-bit ELF file or is cut short, OSError."""
    with open(library, "rb") as file:
        return _read(file, library)


def _read(file: BinaryIO, library: Path) -> Needs:
    head = _bytes(file, 0, 64)
    if head[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit library")
    parts = list(_parts(file, head))
    dynamic = next((part for part in parts if part.kind == _DYNAMIC), None)
    if dynamic is None:
        return Needs((), ())
    entries = list(_entries(file, dynamic))
    table = _place(next((value for tag, value in entries if tag == _STRTAB), 0), parts)
    names = tuple(_string(file, table + value) for tag, value in entries if tag == _NEEDED)
    paths = [_string(file, table + value) for tag, value in entries if tag in (_RPATH, _RUNPATH)]
    own = str(library.parent)
    folders = (part.replace("$ORIGIN", own).replace("${ORIGIN}", own) for part in _split(paths))
    return Needs(names, tuple(Path(os.path.normpath(folder)) for folder in folders))


def _parts(file: BinaryIO, head: bytes) -> Iterator[_Part]:
    (start,) = struct.unpack_from("<Q", head, 32)
    each, count = struct.unpack_from("<HH", head, 54)
    for number in range(min(count, _MOST_PARTS)):
        raw = _bytes(file, start + number * each, 40)
        kind, _, at, address, _, size = struct.unpack("<IIQQQQ", raw)
        yield _Part(kind, at, address, size)


def _entries(file: BinaryIO, dynamic: _Part) -> Iterator[tuple[int, int]]:
    for number in range(min(dynamic.size // 16, _MOST_ENTRIES)):
        tag, value = struct.unpack("<QQ", _bytes(file, dynamic.at + 16 * number, 16))
        if tag == 0:
            return
        yield tag, value


def _place(address: int, parts: list[_Part]) -> int:
    """Where in the file that lies which is loaded to an address."""
    for kind, at, begin, size in parts:
        if kind == _LOAD and begin <= address < begin + size:
            return at + address - begin
    return address


def _split(paths: list[str]) -> list[str]:
    return [part for path in paths for part in path.split(":") if part]


def _bytes(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(min(at, 1 << 62))
    raw = file.read(size)
    if len(raw) < size:
        raise ValueError("cut short")
    return raw


def _string(file: BinaryIO, at: int) -> str:
    file.seek(min(at, 1 << 62))
    raw, end, _ = file.read(_MOST_STRING).partition(b"\0")
    if not end:
        raise ValueError("cut short")
    return raw.decode(errors="replace")
