"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Keys of the same last word that are named beside each other.
MOST = 3
CUTOFF = 0.6


def near_name(wrong: str, known: Sequence[str]) -> str:
    """` (did you mean "...")`, or nothing."""
    return meant(difflib.get_close_matches(wrong, known, n=1, cutoff=CUTOFF))


def near_key(wrong: str, known: Iterable[str]) -> str:
    """The same of a dotted key."""
    return meant(near_keys(wrong, known))


def near_keys(wrong: str, known: Iterable[str]) -> list[str]:
    """Keys that end in the same word, in another section; else the one whose last word is spelled
    most alike, and of several the one whose section is. Often none.
    """
    keys = list(known)
    if same := same_word(wrong, keys):
        return same
    close = [key for key in keys if _alike(_last(wrong), _last(key)) >= CUTOFF]
    return sorted(close, key=lambda key: _nearness(wrong, key))[-1:]


def same_word(wrong: str, known: Iterable[str]) -> list[str]:
    """Keys that end in the same word."""
    return [key for key in known if _last(key) == _last(wrong)][:MOST]


def meant(names: Sequence[str]) -> str:
    """Names as a question, or nothing."""
    return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""


def _nearness(wrong: str, key: str) -> float:
    return _alike(_last(wrong), _last(key)) + 0.3 * _alike(wrong, key)


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _last(key: str) -> str:
    return key.rpartition(".")[2]
