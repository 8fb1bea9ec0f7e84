"""What glibc's malloc does with memory that is freed, for the rest of the process.

Where there is another malloc, nothing changes.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
OWN_PAGES = 1 << 20  # bytes; from here on a block is given back when it is freed
_NEVER, _LARGEST = -1, (1 << 30, 1 << 25)  # the second is what glibc before 2.35 takes at most


def keep_freed() -> None:
    """Have glibc keep the memory of freed tensors, for the rest of the process.

    Every step needs as much as the one before. Left to itself, glibc gives large blocks back and
    the system hands them out again page by page, cleared: 5 to 35 % of a step
    (docs/measurements/2026-11-28-step-time.md).
    """
    if any(_mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST):
        _mallopt(_M_TRIM_THRESHOLD, _NEVER)


def give_back_at_once() -> None:
    """Have glibc return a tensor's memory when it is freed, for the rest of the process.

    Blocks computed again free much between little that stays: left to itself, glibc keeps most of
    what they save resident, as holes.
    """
    _mallopt(_M_MMAP_THRESHOLD, OWN_PAGES)


def _mallopt(key: int, value: int) -> bool:
    """Whether malloc took the wish; other systems' allocators know none."""
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(key, value))
    except (OSError, AttributeError):
        return False
