"""How many samples are held out to validate on, where a task brings none of its own."""

from __future__ import annotations


def held_out(count: int, share: float) -> int:
    """Of `count` samples, two or more: one at least stays on each side."""
    return min(max(round(count * share), 1), count - 1)
