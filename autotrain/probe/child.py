"""A trial from outside: the child process that takes the steps is started, watched and ended.

Whatever happens in it, be it a crash, memory running out or a hang, becomes a `schema.Trial`.
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
from typing import IO, Any

import psutil
from pydantic import ValidationError

from autotrain.schema import Plan, Record, Trial
from autotrain.units import bytes_text, seconds_text

STEPS = 3
_LOOK_EVERY_SECONDS = 0.05
_WINDOWS = sys.platform == "win32"


class Request(Record):
    """What the child is to do: `steps` of a plan, on its task.

    `imports`: modules that a run has loaded before its first step; they take memory too.
    `tensors`: also follow the CPU allocator through one more step, which is slow.
    """

    plan: Plan
    task_file: str
    data: str | None
    steps: int = STEPS
    imports: tuple[str, ...] = ()
    tensors: bool = False


def setup_of(plan: Plan) -> dict[str, Any]:
    """Of a plan, what a trial of it tries: the first fields of `schema.Trial`."""
    return {
        "device": plan.device.kind,
        "index": plan.device.index,
        "threads": plan.device.threads,
        "micro_batch": plan.batch.micro_batch,
        "accum_steps": 2 if plan.batch.buckets else min(plan.batch.accum_steps, 2),
        "buckets": plan.batch.buckets or (),
        "dtype": plan.precision.dtype,
        "optimizer": plan.optimizer.name,
        "implementation": plan.optimizer.implementation,
        "momentum": plan.optimizer.momentum,
    }


def take_steps(request: Request, *, seconds: float, most_bytes: int | None = None) -> Trial:
    """A few real steps in a process of its own, which is gone when this returns or raises.

    It is stopped after `seconds`, and where it holds over `most_bytes` of RAM.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaints:
        process = _start(request, answer, complaints)
        try:
            ended = _wait(process, seconds, most_bytes)
        finally:
            _end(process)
        if ended.outcome in ("timed_out", "out_of_memory"):
            return _trial(request, ended.outcome, ended.message, ended.peak)
        return _answered(answer) or _without_answer(
            request, process.returncode, ended.peak, complaints
        )


class _Ended(Record):
    """How the waiting ended; `peak` is the most RAM that was seen."""

    outcome: str
    message: str
    peak: int


def _start(request: Request, answer: IO[bytes], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    """The child, in a process group of its own. It lives as long as its stdin is open."""
    package = Path(__file__).parents[2]
    installed = package.name in ("site-packages", "dist-packages")
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {"PYTHONDONTWRITEBYTECODE": "1"}
    if not installed:
        more["PYTHONPATH"] = os.pathsep.join(paths)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "autotrain.probe.trial"],
        stdin=subprocess.PIPE,
        stdout=answer,
        stderr=complaints,
        env=os.environ | more,
        start_new_session=not _WINDOWS,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(request.model_dump_json(by_alias=True).encode() + b"\n")
        process.stdin.flush()
    return process


def _wait(process: subprocess.Popen[bytes], seconds: float, most_bytes: int | None) -> _Ended:
    """Until it ends, takes too long, or takes too much."""
    deadline, peak = time.monotonic() + seconds, 0
    while True:
        peak = max(peak, _resident(process.pid))
        if most_bytes is not None and peak > most_bytes:
            message = f"it held {bytes_text(peak)}, and {bytes_text(most_bytes)} were free"
            return _Ended(outcome="out_of_memory", message=message, peak=peak)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_SECONDS)
            return _Ended(outcome="ended", message="", peak=peak)
        if time.monotonic() > deadline:
            message = f"it had not finished after {seconds_text(seconds)}"
            return _Ended(outcome="timed_out", message=message, peak=peak)


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
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


def _answered(answer: IO[bytes]) -> Trial | None:
    answer.seek(0)
    try:
        return Trial.model_validate_json(answer.read())
    except ValidationError:
        return None


def _without_answer(request: Request, code: int, peak: int, complaints: IO[bytes]) -> Trial:
    """What an end without a word means: the system's own killer, or a crash of native code."""
    if code == -getattr(signal, "SIGKILL", 9):
        message = f"the system killed it when it held {bytes_text(peak)}"
        return _trial(request, "out_of_memory", message, peak)
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    said = f": {lines[-1].strip()}" if lines else ""
    return _trial(request, "failed", f"it ended with {how}{said}", peak)


def _trial(request: Request, outcome: str, message: str, peak: int) -> Trial:
    seen = peak if request.plan.device.kind == "cpu" else None
    return Trial.model_validate(
        {
            **setup_of(request.plan),
            "outcome": outcome,
            "message": message,
            "device_peak_bytes": seen,
        }
    )
