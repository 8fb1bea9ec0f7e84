"""Which samples of a micro-batch are at fault when it does not collate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# So many beginnings are tried: with few samples at fault, one of them is a sound one.
ANCHORS = 5
Collates = Callable[[list[Any]], bool]


def fitting(samples: Sequence[Any], jury: Sequence[Any], collates: Collates) -> list[int] | None:
    """Places of the samples that collate together with most others; None: there is no such most.

    A `jury` of other samples helps where a micro-batch is so small that nobody could tell which
    of two is the odd one.
    """
    pool = [*samples, *jury]
    anchors = range(0, len(pool), max(len(pool) // ANCHORS, 1))
    for anchor in anchors:
        if not collates([pool[anchor]]):
            continue
        others = [place for place in range(len(pool)) if place != anchor]
        kept = _grown([anchor], others, lambda places: collates([pool[i] for i in sorted(places)]))
        if 2 * len(kept) > len(pool):
            return sorted(place for place in kept if place < len(samples))
    return None


def _grown(kept: list[int], more: list[int], fits: Callable[[list[int]], bool]) -> list[int]:
    """`kept` and all of `more` that fit to them: log(more) tries for each one that does not."""
    if not more or fits([*kept, *more]):
        return [*kept, *more]
    if len(more) == 1:
        return kept
    half = len(more) // 2
    return _grown(_grown(kept, more[:half], fits), more[half:], fits)
