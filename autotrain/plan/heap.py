"""What glibc's malloc keeps resident for a sequence of births and deaths of tensors.

Large requests are pages of their own and go back at once; smaller ones share a heap that only
shrinks from its top, so holes in it stay resident. What is large, and how much may lie free at the
top before it goes back, a run sets for itself (`autotrain/device.py`; `M_MMAP_THRESHOLD` and
`M_TRIM_THRESHOLD` in mallopt(3)): it keeps all that it frees, unless activations are computed
again.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable

KIB = 1024
PAGE, PAD = 4 * KIB, 128 * KIB
# Holes of larger tensors are filled by others of their size.
MOST = 32 * 1024 * KIB
# From here on a block has pages of its own where freed memory is not kept.
OWN_PAGES = 1024 * KIB
# torch asks for tensors on addresses that 64 divides; a chunk has a header of 16 bytes.
ALIGN, HEADER = 64, 16


class Heap:
    """Bytes resident now and at the peak.

    A request of `threshold` bytes or more is large; `trim` bytes free at the top go back.
    """

    def __init__(self, threshold: float = math.inf, trim: float = math.inf) -> None:
        self.threshold, self.trim = threshold, trim
        self.mapped = self.top = self.extent = self.peak = 0
        self.holes: list[tuple[int, int]] = []  # (size, address), rising
        self.starts: dict[int, int] = {}  # of a hole: its size
        self.ends: dict[int, int] = {}  # of a hole: its start

    def take(self, size: int) -> tuple[int, int]:
        """A chunk for so many bytes: (address, size); address -1 for pages of its own."""
        if size >= self.threshold:
            chunk = -(-(size + ALIGN + HEADER) // PAGE) * PAGE
            self.mapped += chunk
            address = -1
        else:
            chunk = max(-(-(size + HEADER // 2) // HEADER) * HEADER, 2 * HEADER)
            address = self._place(chunk)
        self.peak = max(self.peak, self.mapped + self.extent)
        return address, chunk

    def _place(self, chunk: int) -> int:
        """In the smallest hole that is large enough wherever it begins, else at the top.

        What is cut off before and behind becomes holes: one that was left by as large a chunk
        is therefore too small.
        """
        asked = chunk + ALIGN + 2 * HEADER
        at = bisect_left(self.holes, (asked, -1))
        if at < len(self.holes):
            size, start = self.holes[at]
            self._fill(size, start)
        else:
            size, start = asked, self.top
            self.top += asked
            if self.top > self.extent:
                self.extent = -(-self.top // PAGE) * PAGE
        address = -(-(start + HEADER) // ALIGN) * ALIGN - HEADER
        if 0 < address - start < 2 * HEADER:
            address += ALIGN
        end = start + size
        if address > start:
            self._dig(start, address - start)
        if end == self.top:
            self.top = address + chunk
        elif end > address + chunk:
            self._dig(address + chunk, end - address - chunk)
        return address

    def give(self, address: int, chunk: int) -> None:
        """Take a chunk back."""
        if address < 0:
            self.mapped -= chunk
            return
        if (before := self.ends.get(address)) is not None:
            size = self.starts[before]
            self._fill(size, before)
            address, chunk = before, chunk + size
        if (size := self.starts.get(address + chunk, 0)) != 0:
            self._fill(size, address + chunk)
            chunk += size
        if address + chunk < self.top:
            self._dig(address, chunk)
            return
        self.top = address
        if self.extent - self.top >= self.trim:
            self.extent = self.top + PAD

    def _dig(self, address: int, size: int) -> None:
        insort(self.holes, (size, address))
        self.starts[address], self.ends[address + size] = size, address

    def _fill(self, size: int, address: int) -> None:
        del self.holes[bisect_left(self.holes, (size, address))]
        del self.starts[address], self.ends[address + size]


def played(tape: Iterable[int], *, keeps: bool = True) -> Heap:
    """The heap after a tape was played (`schema.StepTrace` says how it is read).

    `keeps`: what was freed; else what is large goes back at once.
    """
    heap = Heap() if keeps else Heap(OWN_PAGES, PAD)
    chunks: list[tuple[int, int]] = []
    for event in tape:
        if event >= 0:
            chunks.append(heap.take(event))
        else:
            heap.give(*chunks[-1 - event])
    return heap


def resident_peak(tape: Iterable[int], *, keeps: bool = True) -> int:
    """Most bytes resident while a tape is played."""
    return played(tape, keeps=keeps).peak


def alive_peak(tape: Iterable[int], start: int, counts: Callable[[int], bool]) -> int:
    """Most bytes alive at once of what is born after `start` and counts by its size."""
    now = peak = 0
    sizes: list[int] = []
    for place, event in enumerate(tape):
        if event >= 0:
            sizes.append(event if place >= start and counts(event) else 0)
            now += sizes[-1]
            peak = max(peak, now)
        else:
            now -= sizes[-1 - event]
    return peak
