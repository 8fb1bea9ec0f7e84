"""Samples that stay in memory: whoever keeps some says so here, and a plan counts them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import NamedTuple, Protocol

_alive: weakref.WeakSet[Keeper] = weakref.WeakSet()


class Keeper(Protocol):
    """Keeps samples as they are read, up to `cache_bytes`."""

    reads: int
    cache_bytes: int
    kept_bytes: int

    def __len__(self) -> int:
        """How many samples there are."""

    def __hash__(self) -> int:
        """By identity."""

    @property
    def kept_count(self) -> int:
        """How many of them are kept."""


class Keeping(NamedTuple):
    """Bytes that samples take which stay in memory: once all were read, and at most."""

    all_read: int
    at_most: int


def register(keeper: Keeper) -> None:
    """Have it counted for as long as it lives."""
    _alive.add(keeper)


def reads() -> dict[int, int]:
    """How often each keeper was read from so far; for `keeping`."""
    return {id(each): each.reads for each in _alive}


def keeping(before: Mapping[int, int]) -> Keeping:
    """What those will keep that were read from since, by what they kept of the samples so far.

    Loader workers keep their own each; together no more than `at_most`.
    """
    met = [each for each in _alive if each.kept_count and each.reads > before.get(id(each), 0)]
    whole = sum(
        min(each.kept_bytes / each.kept_count * len(each), float(each.cache_bytes)) for each in met
    )
    return Keeping(round(whole), sum(each.cache_bytes for each in met))
