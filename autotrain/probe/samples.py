"""A few hundred files of a dataset, looked at within a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from autotrain.blocks.layouts.listing import Listing
from autotrain.media import UnreadableError
from autotrain.probe.findings import Findings, spread
from autotrain.probe.looking import Looker

SAMPLED_FILES = 256
T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


def look_at_samples(
    listing: Listing,
    names: Sequence[str],
    findings: Findings,
    *,
    look: Looker[T],
    cost: Callable[[T], float],
    budget: float,
) -> dict[str, T]:
    """Name -> what `look` saw, of files spread evenly over `names`.

    All headers are read; as many are decoded, spread evenly again, as cost no more than
    `budget`. What cannot be read is left out and found at fault.
    """
    seen: dict[str, T] = {}

    def keep(name: str, decode: bool) -> None:
        try:
            seen[name] = look(listing.path(name), decode)
        except UnreadableError as problem:
            seen.pop(name, None)
            findings.cannot_read(name, str(problem))

    with look:
        for name in spread(names, SAMPLED_FILES):
            keep(name, decode=False)
        share = min(1.0, budget / max(sum(map(cost, seen.values())), 1.0))
        for name in spread(list(seen), max(int(share * len(seen)), 1)) if seen else ():
            keep(name, decode=True)
    return seen


def most_common(values: Sequence[H]) -> H:
    """The most frequent value, the first of equals."""
    return Counter(values).most_common(1)[0][0]
