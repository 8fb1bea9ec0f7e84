"""TOML and JSON from anyone: how much, how deep and how large is asked before it is parsed."""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Any

# A plan takes some 700 values and 25 kB, and each of its stages about half of that.
TOML_BYTES, TOML_VALUES = 1 << 20, 20_000
# A machine's profile has ten for each operator that was timed, of which a CPU has some 2,000.
PROFILE_VALUES = 200_000
JSON_BYTES, JSON_VALUES = 16 << 20, 1_000_000
DEPTH = 32
TEXT_LENGTH = 1 << 16
# What a machine counts in, and what TOML promises.
_WHOLE = range(-(1 << 63), 1 << 63)
# Strings and comments say nothing of how TOML is nested; one that is not closed ends with the text.
_SILENT = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+(?:"|$)'
    r"|'[^'\n]*+(?:'|$)"
    r"|#[^\n]*+",
    re.DOTALL | re.MULTILINE,
)
_DOTTED = re.compile(rf"(?<![\w-])[\w-]++(?:[ \t]*+\.[ \t]*+[\w-]++){{{DEPTH}}}")
_BRACKETS = re.compile(r"[\[{\]}]")


class TooMuchError(ValueError):
    """It may be what it should be, and is more of it than anybody needs."""


def toml(raw: bytes, most: int = TOML_VALUES) -> dict[str, Any]:
    """TOML of at most so many values as a dict. Raises ValueError where it is none, or more than
    a person would write."""
    _insist(len(raw) <= TOML_BYTES, f"larger than {TOML_BYTES >> 20} MiB")
    text = raw.decode("utf-8-sig")
    bare = _SILENT.sub("_", text)
    count = sum(map(bare.count, "=,[{"))
    _insist(count <= most, f"more than {most:,} values")
    _insist(_nesting(bare) <= DEPTH and not _DOTTED.search(bare), f"nested deeper than {DEPTH}")
    found = tomllib.loads(text)
    _insist_usual(found)
    return found


def from_json(raw: bytes) -> Any:
    """JSON's value. Raises ValueError where it is none, or more than a program of ours writes."""
    insist_json(raw)
    try:
        return _JSON.decode(raw.decode())
    except RecursionError:
        raise TooMuchError("nested too deeply") from None


def insist_json(raw: bytes) -> None:
    """Raise TooMuchError where it is larger than what is read back."""
    _insist(len(raw) <= JSON_BYTES, f"larger than {JSON_BYTES >> 20} MiB")
    count = sum(map(raw.count, (b",", b"[", b"{")))
    _insist(count <= JSON_VALUES, f"more than {JSON_VALUES:,} values")


def _insist(holds: bool, fault: str) -> None:
    if not holds:
        raise TooMuchError(fault)


def _nesting(bare: str) -> int:
    """How deep brackets lie in one another."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(bare):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _whole(digits: str) -> int:
    if len(digits) < 19:
        return int(digits)
    value = int(digits) if len(digits) <= 20 else None
    if value is None or value not in _WHOLE:
        raise TooMuchError(f"{digits[:20]}...: a number of more than 64 bits")
    return value


_JSON = json.JSONDecoder(parse_int=_whole)


def _insist_usual(found: dict[str, Any]) -> None:
    """Raise ValueError naming the key of a number that no setting can be, or of a long text."""
    waiting: list[tuple[str, Any]] = [*found.items()]
    while waiting:
        key, value = waiting.pop()
        shown = key if len(key) <= 100 else f"{key[:97]}..."
        if isinstance(value, int):
            _insist(value in _WHOLE, f"{shown}: a number of more than 64 bits")
        if isinstance(value, float):
            _insist(math.isfinite(value), f"{shown}: {value} should be a finite number")
        _insist(len(key) <= TEXT_LENGTH, f"{shown}: a key of more than {TEXT_LENGTH:,} characters")
        if isinstance(value, str):
            fault = f"{shown}: a text of more than {TEXT_LENGTH:,} characters"
            _insist(len(value) <= TEXT_LENGTH, fault)
            _insist("\0" not in value, f"{shown}: a text with a NUL, which no path or name has")
        elif isinstance(value, dict):
            waiting += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{key}.{place}", inner) for place, inner in enumerate(value)]
