"""`events.jsonl` while it grows, as anyone may read it: also over a network, also torn."""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path

from autotrain.errors import AutotrainError
from autotrain.events import Event, from_json
from autotrain.files import open_regular
from autotrain.report.result import LINE_LENGTH

_PIECE = 1 << 20
# How the events of a run that is well under way are told: the newest of each kind.
_KEPT = {
    "started": 1,
    "step": 2,
    "evaluated": 1,
    "saved": 1,
    "healed": 3,
    "warned": 3,
    "stopped": 1,
}
_NAME = re.compile(r'\s*\{.{0,40}?"event"\s*:\s*"(\w+)"')


class Tail:
    """Whole lines as they come. A last line without its end is waited for.

    The file is opened anew each time: so a network file system shows what is new, and nobody is
    kept from renaming it. `anew` counts how often another file stood in its place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.anew = 0
        self._file: tuple[int, int] | None = None
        self._at = 0
        self._rest = b""

    @property
    def at(self) -> int:
        """Bytes up to the end of the last whole line."""
        return self._at - len(self._rest)

    def skip(self, at: int) -> None:
        """Begin behind so many bytes: the end of a line that was seen before."""
        self._at = at

    def lines(self) -> Iterator[str]:
        """Those since the last call; none where the file is not there (yet).

        Raises AutotrainError where it may not be read.
        """
        try:
            with open_regular(self.path) as file:
                status = os.fstat(file.fileno())
                self._look(status)
                file.seek(self._at)
                while piece := file.read(_PIECE):
                    self._at += len(piece)
                    yield from self._whole(piece)
        except FileNotFoundError:
            return
        except OSError as error:
            raise AutotrainError(f"{self.path}: {error.strerror}", "name a run's folder") from None

    def _look(self, status: os.stat_result) -> None:
        """Begin again where it is another file, or has become shorter."""
        found = (status.st_dev, status.st_ino)
        if self._file is not None and (found != self._file or status.st_size < self._at):
            self.anew += 1
            self._at, self._rest = 0, b""
        self._file = found

    def _whole(self, piece: bytes) -> Iterator[str]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
        if len(self._rest) > LINE_LENGTH:  # no event is so long
            self._rest = b""


def last_time(path: Path) -> float:
    """When the newest event of a file was; minus infinity where there is none that is whole."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LINE_LENGTH, 0))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return -math.inf
    events = (event_of(line.decode("utf-8", "replace")) for line in reversed(lines))
    return next((event.time for event in events if event is not None), -math.inf)


def digest(lines: Iterable[str]) -> list[Event]:
    """The newest session in a few events, in their order: where a run stands, and what it said."""
    kept = {name: deque[tuple[int, str]](maxlen=2 * most) for name, most in _KEPT.items()}
    for number, line in enumerate(lines):
        found = _NAME.match(line)
        name = found[1] if found else ""
        if name == "started":
            for held in kept.values():
                held.clear()
        if name in kept:
            kept[name].append((number, line))
    chosen: list[tuple[int, Event]] = []
    for name, most in _KEPT.items():
        sound = ((n, e) for n, line in reversed(kept[name]) if (e := event_of(line)) is not None)
        chosen += islice(sound, most)
    return [event for _, event in sorted(chosen, key=itemgetter(0))]


def event_of(line: str) -> Event | None:
    """What a line says; None where it is torn, or no event."""
    try:
        return from_json(line)
    except ValueError:
        return None
