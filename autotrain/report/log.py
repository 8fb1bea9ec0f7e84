"""`events.jsonl`: every event of a run, one line each, there as soon as it happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from autotrain.errors import AutotrainError
from autotrain.events import Event, to_json
from autotrain.files import append_regular, open_regular
from autotrain.report.stream import Tolerant


@contextmanager
def event_log(path: Path) -> Iterator[Callable[[Event], None]]:
    """A function that appends one event to `path`.

    Raises AutotrainError when the file cannot be opened. A disk that fills up later stops
    nothing: one warning on stderr, and each further event is tried again.
    """
    try:
        file = append_regular(path)
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror}", "choose a folder you may write") from None
    log = EventLog(path, file)
    with file:
        yield log


class EventLog:
    """Appends lines to an open file; a torn line, ours or an older one's, is ended first."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path = path
        self._file = file
        self._torn = _ends_torn(path)
        self._warned = False

    def __call__(self, event: Event) -> None:
        """Append one event."""
        line = f"{to_json(event)}\n".encode()
        try:
            self._append(b"\n" + line if self._torn else line)
        except OSError as error:
            self._warn(error)

    def _append(self, line: bytes) -> None:
        written = self._file.write(line)
        self._torn = written != len(line)
        if self._torn:
            raise OSError("only part of a line was written")

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            why = error.strerror or str(error)
            Tolerant(sys.stderr).line(
                f"warning: {self._path}: {why}; training goes on, its events are not recorded"
            )


def _ends_torn(path: Path) -> bool:
    """Whether the last line lacks its newline: a power cut or a full disk came between."""
    with open_regular(path) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
