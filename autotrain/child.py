"""A process that is asked one thing, watched, and ended: what goes wrong in it stays there.

A crash, memory running out, a hang: each becomes a `Silence`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, TypeVar

import psutil
from pydantic import ValidationError

from autotrain.schema import Record
from autotrain.units import bytes_text, seconds_text

_LOOK_EVERY_SECONDS = 0.05
_WINDOWS = sys.platform == "win32"


class Silence(Record):
    """Why a child gave no answer; `peak` is the most RAM that it was seen to hold."""

    outcome: Literal["timed_out", "out_of_memory", "failed"]
    message: str
    peak: int


Answer = TypeVar("Answer", bound=Record)


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
    `most_bytes` of RAM.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaints:
        process = _start(module, request, answer, complaints)
        try:
            ended = _wait(process, seconds, most_bytes)
        finally:
            end(process)
        if isinstance(ended, Silence):
            return ended
        with suppress(ValidationError):
            answer.seek(0)
            return expected.model_validate_json(answer.read())
        return _without_answer(process.returncode, ended, complaints)


def start(
    module: str, stdout: IO[bytes] | int, stderr: IO[bytes] | int, *arguments: str
) -> subprocess.Popen[bytes]:
    """`python -m module` in a process group of its own, with its stdin to write to; see `end`."""
    package = Path(__file__).parents[1]
    installed = package.name in ("site-packages", "dist-packages")
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {"PYTHONDONTWRITEBYTECODE": "1"}
    if not installed:
        more["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=os.environ | more,
        start_new_session=not _WINDOWS,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


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
            message = f"it held {bytes_text(peak)}, and {bytes_text(most_bytes)} were free"
            return Silence(outcome="out_of_memory", message=message, peak=peak)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_SECONDS)
            return peak
        if time.monotonic() > deadline:
            message = f"it had not finished after {seconds_text(seconds)}"
            return Silence(outcome="timed_out", message=message, peak=peak)


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def end(process: subprocess.Popen[bytes]) -> None:
    """The child and all that it started, whether it has ended or not."""
    offspring: list[psutil.Process] = []
    with suppress(psutil.Error):
        offspring = psutil.Process(process.pid).children(recursive=True)
    if not _WINDOWS:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for each in offspring:
        with suppress(psutil.Error):
            each.kill()
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


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
