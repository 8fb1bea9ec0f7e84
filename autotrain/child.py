"""A process that is asked one thing, or one after another: what goes wrong in it stays there.

A crash, memory running out, a hang: each becomes a `Silence`.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from typing import IO, Literal, TypeVar

import psutil
from pydantic import ValidationError

from autotrain.offspring import end, start
from autotrain.schema import Record
from autotrain.units import bytes_text, seconds_text

__all__ = ["CutError", "Dialogue", "Silence", "ask", "end", "start"]

# Before an answer that is not the last one: the next says more.
SO_FAR = b"so far "
_LOOK_EVERY_SECONDS, _LAST_SECONDS = 0.05, 2.0


class Silence(Record):
    """Why a child gave no answer; `peak` is the most RAM that it was seen to hold."""

    outcome: Literal["timed_out", "out_of_memory", "failed"]
    message: str
    peak: int


Answer = TypeVar("Answer", bound=Record)


class CutError(KeyboardInterrupt):
    """An interrupt, and what the child had `said` until then; see `probe.trial.serve`."""

    def __init__(self, said: Record) -> None:
        super().__init__()
        self.said = said


def ask(
    module: str,
    request: Record,
    expected: type[Answer],
    *,
    seconds: float,
    most_bytes: int | None = None,
) -> Answer | Silence:
    """What `python -m module` answers to a request, in a process of its own.

    It is gone when this returns or raises, stopped after `seconds`, and where it holds over
    `most_bytes` of RAM. An interrupt after it has said something is a CutError.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaints:
        process = _start(module, request, answer, complaints)
        try:
            ended = _wait(process, seconds, most_bytes)
        except KeyboardInterrupt:
            so_far = [line for line in _lines(answer) if line.startswith(SO_FAR)]
            if not so_far:
                raise
            cut = so_far[-1].removeprefix(SO_FAR)
            raise CutError(expected.model_validate_json(cut)) from None
        finally:
            end(process)
        if isinstance(ended, Silence):
            return ended
        with suppress(ValidationError, IndexError):
            return expected.model_validate_json(_lines(answer)[-1])
        return _without_answer(process.returncode, ended, complaints)


def _lines(answer: IO[bytes]) -> list[bytes]:
    """Those that are whole."""
    answer.seek(0)
    return answer.read().split(b"\n")[:-1]


class Dialogue:
    """A process that answers each line with a line, watched as `ask` watches it, until its `end`.

    After a Silence it is of no more use.
    """

    def __init__(self, module: str) -> None:
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = start(module, subprocess.PIPE, self._complaints)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def ask(self, line: bytes, *, seconds: float, most_bytes: int | None = None) -> bytes | Silence:
        """The line by which it answers."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        deadline, peak = time.monotonic() + seconds, 0
        while True:
            peak = max(peak, _resident(self.pid))
            if most_bytes is not None and peak > most_bytes:
                return _too_large(peak, most_bytes)
            with suppress(queue.Empty):
                said = self._lines.get(timeout=_LOOK_EVERY_SECONDS)
                return said or self._ended(peak)
            if time.monotonic() > deadline:
                return _too_slow(seconds, peak)

    def end(self) -> None:
        """It and all that it started."""
        end(self._process)
        self._complaints.close()

    def _ended(self, peak: int) -> Silence:
        with suppress(subprocess.TimeoutExpired):  # one that only says no more is ended
            self._process.wait(_LAST_SECONDS)
        end(self._process)
        return _without_answer(self._process.returncode, peak, self._complaints)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self._lines.put(line)
        self._lines.put(b"")


def _start(
    module: str, request: Record, answer: IO[bytes], complaints: IO[bytes]
) -> subprocess.Popen[bytes]:
    """The child, in a process group of its own. It lives as long as its stdin is open."""
    process = start(module, answer, complaints)
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(request.model_dump_json(by_alias=True).encode() + b"\n")
        process.stdin.flush()
    return process


def _wait(
    process: subprocess.Popen[bytes], seconds: float, most_bytes: int | None
) -> int | Silence:
    """Until it ends, takes too long, or takes too much; the most RAM seen where it ended."""
    deadline, peak = time.monotonic() + seconds, 0
    while True:
        peak = max(peak, _resident(process.pid))
        if most_bytes is not None and peak > most_bytes:
            return _too_large(peak, most_bytes)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_SECONDS)
            return peak
        if time.monotonic() > deadline:
            return _too_slow(seconds, peak)


def _too_large(peak: int, most_bytes: int) -> Silence:
    message = f"it held {bytes_text(peak)}, and {bytes_text(most_bytes)} were free"
    return Silence(outcome="out_of_memory", message=message, peak=peak)


def _too_slow(seconds: float, peak: int) -> Silence:
    message = f"it had not finished after {seconds_text(seconds)}"
    return Silence(outcome="timed_out", message=message, peak=peak)


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _without_answer(code: int, peak: int, complaints: IO[bytes]) -> Silence:
    """What an end without a word means: the system's own killer, or a crash of native code."""
    if code == -getattr(signal, "SIGKILL", 9):
        message = f"the system killed it when it held {bytes_text(peak)}"
        return Silence(outcome="out_of_memory", message=message, peak=peak)
    if code == -getattr(signal, "SIGXCPU", 24):
        message = "it used up the processor time that it may have"
        return Silence(outcome="timed_out", message=message, peak=peak)
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    said = f": {lines[-1].strip()}" if lines else ""
    return Silence(outcome="failed", message=f"it ended with {how}{said}", peak=peak)
