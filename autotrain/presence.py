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
    """`PID@PLACE` of this process. The place is this machine, or a container on it, as a digest."""
    return f"{os.getpid()}@{_place()}"


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

    None where that cannot be known: it was on another machine, or nobody said.
    """
    number, at, place = (marked or "").partition("@")
    if not at or place != _place() or not number.isdecimal():
        return None
    try:
        process = psutil.Process(int(number))
        begun, status = process.create_time(), process.status()
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None
    return bool(begun <= time + SAME_SECONDS and status != psutil.STATUS_ZOMBIE)
