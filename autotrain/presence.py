"""Which process a run is, in a word that others on the same machine can look up."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress

import psutil

# Clocks and the system's own count of when a process began differ by less.
SAME_SECONDS = 2.0


def mark() -> str:
    """`PID.TICKS@PLACE` of this process.

    The ticks are the machine's from its start to the process's, which no step of a clock moves;
    left out where the system does not say. The place is this machine, or a container on it, as a
    digest.
    """
    ticks = _ticks(os.getpid())
    return f"{os.getpid()}{f'.{ticks}' if ticks else ''}@{_place()}"


def _ticks(process: int) -> str:
    """When a process began, in ticks of Linux; empty for another system, or a process gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # Its second field, the name in parentheses, may hold spaces and parentheses.
            return file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, ValueError, IndexError):
        return ""


def _place() -> str:
    """Process numbers mean something to those alone who have the same place."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    text = f"{socket.gethostname()} {space} {_boot()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _boot() -> str:
    """Another one after each start of the machine; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def alive(marked: str | None, time: float) -> bool | None:
    """Whether the process of that mark, which was there at `time`, still is.

    None where that cannot be known: it was on another machine, or nobody said. `time` tells a
    process from another with its number where the mark has no ticks.
    """
    name, at, place = (marked or "").partition("@")
    number, _, ticks = name.partition(".")
    if not at or place != _place() or not number.isdecimal():
        return None
    try:
        process = psutil.Process(int(number))
        if ticks:
            same = ticks == _ticks(process.pid)
        else:
            same = process.create_time() <= time + SAME_SECONDS
        status = process.status()
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None
    return bool(same and status != psutil.STATUS_ZOMBIE)
