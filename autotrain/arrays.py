"""Shapes of the arrays in an .npz, from its headers, and whether they hold what they say."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autotrain.files import open_regular
from autotrain.media import UnreadableError
from autotrain.units import bytes_text

PREFERRED = ("features", "landmarks", "frames", "x", "data")
ARRAY_LIMIT_BYTES = 1 << 30
MEMBER_LIMIT = 1000
HEADER_LIMIT_BYTES = 1 << 16
# Zeros deflate by a thousand, features by ten: beyond, a large array is taken for a bomb.
BOMB_RATIO, BOMB_BYTES = 200, 64 << 20


@dataclass(frozen=True, slots=True)
class Frames:
    """The feature array of one file: [frames, *shape]; `name` is its key in the .npz."""

    name: str
    frames: int
    shape: Sequence[int]
    bytes: int

    @property
    def width(self) -> int:
        """Numbers of a frame."""
        return math.prod(self.shape)


def look_at_features(path: Path, decode: bool) -> Frames:
    """The array of an .npz that holds the features, its trailing axes taken as one width.

    That is the one of a usual name, else the largest with two axes or more. With `decode` it
    is read and checked for numbers that are not finite. Raises UnreadableError.
    """
    try:
        with open_regular(path) as whole, zipfile.ZipFile(whole) as archive:
            members = archive.infolist()
            if len(members) > MEMBER_LIMIT:
                raise UnreadableError(f"holds {len(members)} arrays")
            headers = {m.filename.removesuffix(".npy"): _header(archive, m) for m in members}
            name = _features_of({key: shape for key, (shape, _) in headers.items()})
            shape, kind = headers[name]
            found = Frames(name, shape[0], shape[1:], math.prod(shape) * kind.itemsize)
            if found.bytes > ARRAY_LIMIT_BYTES:
                raise UnreadableError(f"its array `{name}` takes {bytes_text(found.bytes)}")
            if found.bytes > max(BOMB_RATIO * path.stat().st_size, BOMB_BYTES):
                raise UnreadableError(
                    f"a bomb: its array `{name}` takes {bytes_text(found.bytes)}, the file "
                    f"{bytes_text(path.stat().st_size)}"
                )
            if min(shape) <= 0:
                raise UnreadableError(f"its array `{name}` is empty, of shape {shape}")
            if decode:
                _check_values(archive, name, kind)
    except zipfile.BadZipFile:
        raise UnreadableError("not an .npz archive, or a truncated one") from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
    except UnreadableError:
        raise
    except Exception as error:  # the parsers below raise nearly anything on broken input
        raise UnreadableError(
            f"cannot be read: {str(error)[:200] or type(error).__name__}"
        ) from None
    return found


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a member, after comparing them with its size."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableError(f"`{member.filename}` is packed in a way that numpy does not use")
    with archive.open(member) as file:
        shape, kind = _read_header(file)
        claimed = file.tell() + math.prod(shape) * kind.itemsize
    if kind.hasobject:
        raise UnreadableError(f"its array `{member.filename}` holds pickled objects")
    if claimed != member.file_size:
        raise UnreadableError(
            f"the header of `{member.filename}` claims {bytes_text(claimed)}, "
            f"{bytes_text(member.file_size)} are there"
        )
    return shape, kind


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    from numpy.lib import format as npy

    head = file.read(12)  # magic, version, and how long the header is
    old = head[6:7] == b"\1"
    length = int.from_bytes(head[8 : 10 if old else 12], "little")
    if length > HEADER_LIMIT_BYTES:
        raise UnreadableError(f"an array's header claims {bytes_text(length)}")
    file.seek(0)
    npy.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, _, kind = (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(file)
    return shape, kind


def _features_of(shapes: dict[str, tuple[int, ...]]) -> str:
    wide = {name: shape for name, shape in shapes.items() if len(shape) >= 2}
    if not wide:
        raise UnreadableError("holds no array with frames and features")
    usual = next((name for name in PREFERRED if name in wide), None)
    return usual or max(sorted(wide), key=lambda name: math.prod(wide[name]))


def _check_values(archive: zipfile.ZipFile, name: str, kind: Any) -> None:
    import numpy as np

    if kind.kind not in "fiub":
        raise UnreadableError(f"its array `{name}` holds no numbers but {kind}")
    finite = True
    member = name + ".npy" if name + ".npy" in archive.namelist() else name
    with archive.open(member) as file:
        _read_header(file)
        while block := file.read((1 << 20) // kind.itemsize * kind.itemsize):
            values = np.frombuffer(block, kind)
            finite = finite and bool(np.isfinite(values).all())
    if not finite:
        raise UnreadableError(f"its array `{name}` holds values that are not finite")
