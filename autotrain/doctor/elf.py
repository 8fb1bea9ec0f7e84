"""Which other libraries a Linux library needs, read from its file: nothing is loaded."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LOAD, _DYNAMIC = 1, 2  # elf.h: PT_LOAD, PT_DYNAMIC
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29  # DT_...
_MOST_STRING, _MOST_ENTRIES = 4096, 10_000


class Needs(NamedTuple):
    """Names of libraries, and the folders in which the library itself has them looked for."""

    names: tuple[str, ...]
    folders: tuple[Path, ...]


def needs(library: Path) -> Needs:
    """Raises ValueError for what is no 64-bit ELF file or is cut short, OSError."""
    with open(library, "rb") as file:
        if os.fstat(file.fileno()).st_size < 64:
            raise ValueError("too short for a library")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            try:
                return _read(raw, library)
            except (struct.error, IndexError) as error:
                raise ValueError(f"cut short: {error}") from None


def _read(raw: mmap.mmap, library: Path) -> Needs:
    if raw[:5] != b"\x7fELF\x02" or raw[5] != 1:
        raise ValueError("not a 64-bit library")
    parts = list(_headers(raw))
    dynamic = next(((at, size) for kind, at, _, size in parts if kind == _DYNAMIC), None)
    if dynamic is None:
        return Needs((), ())
    entries = list(_entries(raw, *dynamic))
    address = next((value for tag, value in entries if tag == _STRTAB), 0)
    table = next(
        (at + address - where for kind, at, where, size in parts
         if kind == _LOAD and where <= address < where + size),
        address,
    )  # fmt: skip
    names = tuple(_string(raw, table + value) for tag, value in entries if tag == _NEEDED)
    paths = (_string(raw, table + value) for tag, value in entries if tag in (_RPATH, _RUNPATH))
    own = str(library.parent)
    folders = tuple(
        Path(os.path.normpath(part.replace("$ORIGIN", own).replace("${ORIGIN}", own)))
        for path in paths for part in path.split(":") if part
    )  # fmt: skip
    return Needs(names, folders)


def _headers(raw: mmap.mmap) -> Iterator[tuple[int, int, int, int]]:
    """Kind, place in the file, address and size in the file of each part."""
    (start,) = struct.unpack_from("<Q", raw, 32)
    each, count = struct.unpack_from("<HH", raw, 54)
    for number in range(count):
        kind, _, at, address, _, size = struct.unpack_from("<IIQQQQ", raw, start + number * each)
        yield kind, at, address, size


def _entries(raw: mmap.mmap, at: int, size: int) -> Iterator[tuple[int, int]]:
    for number in range(min(size // 16, _MOST_ENTRIES)):
        tag, value = struct.unpack_from("<QQ", raw, at + 16 * number)
        if tag == 0:
            return
        yield tag, value


def _string(raw: mmap.mmap, at: int) -> str:
    if not 0 <= at < len(raw):
        raise ValueError("cut short")
    end = raw.find(b"\0", at, at + _MOST_STRING)
    return raw[at:end].decode(errors="replace") if end >= 0 else ""
