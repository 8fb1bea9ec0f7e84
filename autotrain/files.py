"""Files: what is shipped, where a user's own settings live, and writes that cannot tear."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import sys
import tempfile
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from autotrain import parsing
from autotrain.errors import AutotrainError, UsageError
from autotrain.units import bytes_text

FEW_FILES = 12  # a checkpoint and its pointers are about as many


def shipped(folder: str) -> Path:
    """`profiles`, `templates` or `recipes`: inside the installed package, else in the checkout."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def shipped_names(folder: str) -> list[str]:
    """Names one may use: `NAME.toml` files, or folders for templates."""
    entries = sorted(shipped(folder).iterdir()) if shipped(folder).is_dir() else []
    folders = [e.name for e in entries if (e / "task.py").is_file()]
    return folders or [e.stem for e in entries if e.suffix == ".toml"]


def own_names(folder: str) -> list[str]:
    """Names of the user's own `NAME.toml` files in that folder of their settings."""
    place = config_directory() / folder
    return sorted(path.stem for path in place.glob("*.toml")) if place.is_dir() else []


def config_directory() -> Path:
    """The user's own settings (trust, ...): AUTOTRAIN_HOME, else the platform's place."""
    return _home("AUTOTRAIN_HOME", "XDG_CONFIG_HOME", ".config", "APPDATA")


def cache_directory() -> Path:
    """What may be deleted and is made again (calibration): AUTOTRAIN_HOME, else the platform's."""
    return _home("AUTOTRAIN_HOME", "XDG_CACHE_HOME", ".cache", "LOCALAPPDATA")


def _home(own: str, xdg: str, default: str, windows: str) -> Path:
    if os.environ.get(own):
        return Path(os.environ[own])
    if sys.platform == "win32" and os.environ.get(windows):
        return Path(os.environ[windows]) / "autotrain"
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / default) / "autotrain"


def read_toml(path: Path, most: int = parsing.TOML_VALUES) -> dict[str, Any]:
    """A TOML file of at most so many values as a dict.

    Raises AutotrainError (unreadable) or UsageError (malformed).
    """
    try:
        with open_regular(path) as file:
            raw = file.read(parsing.TOML_BYTES + 1)
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror}", "check the path") from None
    try:
        return parsing.toml(raw, most)
    except parsing.TooMuchError as error:
        raise UsageError(f"{path}: {error}") from None
    except ValueError as error:  # TOML, UTF-8, and digits too many
        raise UsageError(f"{path}: not valid TOML: {error}") from None


def regular_size(path: Path) -> int:
    """Bytes of a regular file. Raises OSError: a pipe or a device is refused, as it may block."""
    status = os.stat(path)
    _insist_on_regular(path, status)
    return status.st_size


def open_regular(path: Path) -> BinaryIO:
    """A regular file, to read. Raises OSError, as `regular_size` does."""
    regular_size(path)
    return os.fdopen(_opened(path, os.O_RDONLY), "rb")


def append_regular(path: Path) -> FileIO:
    """A regular file, made where there is none, to write at its end without a buffer.

    Raises OSError, as `regular_size` does.
    """
    if path.exists():
        regular_size(path)
    return os.fdopen(_opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0)


def _opened(path: Path, flags: int) -> int:
    """A regular file's descriptor: it may have been replaced since somebody looked."""
    usual = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags | usual, 0o666)
    try:
        _insist_on_regular(path, os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


def read_regular(path: Path, most: int) -> bytes:
    """All of a regular file of up to `most` bytes. Raises OSError, of a larger one too.

    A device such as /dev/full has no end, whoever named it.
    """
    with open_regular(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return raw


def _insist_on_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` so that a reader, or a power cut, sees the old content or the new.

    Writes beside it, fsyncs, renames, fsyncs the folder. Raises AutotrainError when the
    folder is missing, full or not writable.
    """
    try:
        raw = content.encode() if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        odd = error.object[error.start : error.end].encode(errors="backslashreplace").decode()
        raise AutotrainError(
            f"{path}: it cannot hold {odd}, of a name that is not UTF-8",
            "rename the folder or file",
        ) from None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise AutotrainError(
            f"{path.parent}: {error.strerror}", "choose a folder you may write"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fchmod(file.fileno(), 0o644) if hasattr(os, "fchmod") else None
            sync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise AutotrainError(
            f"{path}: {error.strerror}", "free space, or choose another place"
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def room(folder: Path) -> tuple[int, str]:
    """Bytes that are free on a folder's disk, and how that is said. Raises OSError.

    A file system may run out of inodes first. Not all tell the truth about these, so that is said
    and nothing is refused for it.
    """
    free = shutil.disk_usage(folder).free
    if hasattr(os, "statvfs"):
        left = os.statvfs(folder)
        if left.f_files and left.f_favail < FEW_FILES:
            return free, f"{bytes_text(free)}, but no inodes for more files"
    return free, bytes_text(free)


def nearest_folder(where: Path) -> Path:
    """`where`, or its nearest parent that exists and is a folder."""
    path = Path(os.path.abspath(where))
    return next((p for p in (path, *path.parents) if p.is_dir()), Path(path.anchor))


def aside(path: Path) -> Path:
    """A free name beside `path` for what was there before: `NAME.before-1`, `-2`, ..."""
    numbered = (path.with_name(f"{path.name}.before-{number}") for number in itertools.count(1))
    return next(place for place in numbered if not place.exists())


def make_folder(folder: Path) -> None:
    """A folder, and those it stands in, whose names survive a power cut. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    # Of one that was there too: whoever made it may have been killed before this.
    sync_folder(folder.parent)


def sync(handle: int) -> None:
    """fsync; on macOS F_FULLFSYNC, as fsync there leaves the drive its cache. Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                raise  # a file system that has no such call gets the other one
    os.fsync(handle)


def sync_file(path: Path) -> None:
    """fsync a file that something else has written. Raises OSError."""
    with open(path, "r+b") as file:
        sync(file.fileno())


def sync_folder(folder: Path) -> None:
    """fsync a directory, so that a rename in it survives a power cut.

    Windows and some network file systems have no such call, and folders above one's own may be
    closed to reading: there it does nothing.
    """
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(handle)


def first_line(path: Path) -> str:
    """The first line of a text, at most 64 KiB of it; empty where there is none."""
    try:
        with open_regular(path) as file:
            return file.readline(1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""


def read_json(path: Path) -> Any:
    """A JSON file's content, or None where it is missing, torn, or more than we write."""
    try:
        with open_regular(path) as file:
            return parsing.from_json(file.read(parsing.JSON_BYTES + 1))
    except (OSError, ValueError):
        return None
