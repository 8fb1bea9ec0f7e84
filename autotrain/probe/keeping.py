"""Whether a dataset keeps the samples that it has read, as malloc sees it from below.

A dictionary of decoded images, one more for each index, is no tensor of a step: the process grows
as long as samples are new, and each loader worker grows by itself.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

# Samples read for it: so many, these again, and twice so many others; and how long that may take.
READ, SECONDS = 8, 1.0
_TIMES = 4
# Less than so many bytes, or than this share of a sample, are no samples.
LEAST_BYTES, LEAST_SHARE = 1024, 0.05
# Of a second reading of the same, what may stay; and how alike readings of others must be.
AGAIN, ALIKE = 0.2, 3.0
_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
    "keepcost",
)  # fmt: skip
# Objects of up to 512 bytes lie in pools of Python's own; so large is one, about.
_SMALL_OBJECT = 64


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def allocated() -> Callable[[], int] | None:
    """What tells the bytes in use, to the byte but for Python's small objects; None: nobody does.

    glibc from 2.33 on.
    """
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        mallinfo2.restype = _Mallinfo2

        def told() -> int:
            found = mallinfo2()
            return int(found.uordblks + found.hblkhd + _SMALL_OBJECT * sys.getallocatedblocks())

        return told
    return None


def kept_of_each(
    dataset: Any, unread: Sequence[int], sample_bytes: float, sample_seconds: float
) -> float:
    """Bytes that stay of each sample that is read for the first time; 0: none do, or not to tell.

    `unread`: indices that nobody has read yet, a third of them for each of three tries. What the
    dataset raises goes through.
    """
    many = min(len(unread) // 3, READ)
    if sample_seconds > 0:
        many = min(many, int(SECONDS / _TIMES / sample_seconds))
    told = allocated()
    if told is None or many < 2:
        return 0.0
    first, second, third = (unread[i * many : (i + 1) * many] for i in range(3))
    begun = time.perf_counter()
    grown: list[float] = []
    for indices in (first, first, second, third):
        before = _settled(told)
        for index in indices:
            dataset[index]
        grown.append(float(_settled(told) - before))
        if time.perf_counter() - begun > 2 * SECONDS:
            return 0.0
    again = grown.pop(1)
    least, most = min(grown), max(grown)
    each = least / many
    steady = each > 0 and most <= ALIKE * least and again <= AGAIN * least
    return each if steady and each >= max(LEAST_BYTES, LEAST_SHARE * sample_bytes) else 0.0


def _settled(told: Callable[[], int]) -> int:
    gc.collect(1)
    return told()
