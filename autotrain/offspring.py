"""Processes of ours: each begins in a group of its own, and ends with all that it started.

The standard library is enough, so that the doctor can ask where others are broken.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_WINDOWS = sys.platform == "win32"
# To Python any text means yes; by this one our own word is known from the person's.
_SAFE_PATH, _OURS = "PYTHONSAFEPATH", "autotrain"


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


@contextmanager
def safe_path() -> Iterator[None]:
    """Within, the Pythons that multiprocessing starts take no module from the current folder.

    It has no `-P` for them: by `-c` they import multiprocessing from anywhere. See `usual_path`.
    """
    mine = not os.environ.get(_SAFE_PATH)
    if mine:
        os.environ[_SAFE_PATH] = _OURS
    try:
        yield
    finally:
        if mine:
            del os.environ[_SAFE_PATH]


def usual_path() -> None:
    """In such a Python, once it is at work: what a person's code starts from there is its own."""
    if os.environ.get(_SAFE_PATH) == _OURS:
        del os.environ[_SAFE_PATH]


def end(process: subprocess.Popen[bytes]) -> None:
    """The child and all that it started, whether it has ended or not."""
    others = _started_by(process.pid)
    if not _WINDOWS:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for pid in others:
        with suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


def _started_by(pid: int) -> list[int]:
    """Processes below that one; none where nobody can tell."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []
