"""Which phoneme is heard when: one table beside each clip, from a corpus or from an aligner.

`wavs/ID.tsv` belongs to `wavs/ID.wav` (or .flac, ...). UTF-8, cells separated by tabs, a line per
phoneme in the order they are spoken, below this header:

    phoneme seconds hertz

`phoneme`: any name without spaces; `_` is a pause. `seconds`: how long it lasts; the sum is the
length of the clip. `hertz`: the mean pitch of its voiced part, 0 where it has none; leave the
column out, or a cell empty, where it is not known (it is measured then).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from autotrain.blocks.layouts.rows import column, malformed, read_table
from autotrain.errors import AutotrainError

SUFFIX = ".tsv"
HEADER = ("phoneme", "seconds", "hertz")
PAUSE = "_"
SLACK = 0.05  # seconds by which an aligner's sum may miss a clip's length


class Phone(NamedTuple):
    """One phoneme of a clip. `hertz` is None where nothing says it, 0 where it is unvoiced."""

    phoneme: str
    seconds: float
    hertz: float | None = None


def alignment_path(clip: Path) -> Path:
    """Where the table of a clip is: beside it."""
    return clip.with_suffix(SUFFIX)


def read_alignment(clip: Path, seconds: float | None = None) -> list[Phone]:
    """The phonemes of a clip from the table beside it.

    Raises AutotrainError, naming file and line, where it is missing, malformed or empty, and
    where it does not add up to `seconds` (0.05 s and 1 % of slack for aligners that round).
    """
    path = alignment_path(clip)
    if not path.is_file():
        raise AutotrainError(
            f"{clip}: no phonemes beside it ({path.name})",
            "write `phoneme`, `seconds` per line (tabs, with that header), from a forced aligner",
        )
    header, rows = read_table(path)
    places = [column(header, name) for name in HEADER]
    if places[0] is None or places[1] is None:
        raise malformed(path, 1, "no columns `phoneme` and `seconds`")
    phones = [_phone(path, line, cells, places) for line, cells in rows]
    total = math.fsum(phone.seconds for phone in phones)
    if not phones or total <= 0:
        raise AutotrainError(f"{path}: no phonemes")
    if seconds is not None and abs(total - seconds) > max(SLACK, 0.01 * seconds):
        raise AutotrainError(
            f"{path}: its phonemes last {total:.3f} s, {clip.name} {seconds:.3f} s",
            "align this clip again",
        )
    return phones


def _phone(path: Path, line: int, cells: list[str], places: list[int | None]) -> Phone:
    name, seconds, hertz = (None if p is None else cells[p].strip() for p in places)
    if not name or any(c.isspace() for c in name):
        raise malformed(path, line, f"{name!r} is no phoneme")
    return Phone(
        name,
        _number(path, line, "seconds", seconds or "", 3600.0),
        _number(path, line, "hertz", hertz, 20_000.0) if hertz else None,
    )


def _number(path: Path, line: int, what: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise malformed(path, line, f"{what} {text!r} is no number from 0 to {most:g}")
    return value


def alignment_text(phones: Iterable[Phone]) -> str:
    """The table as it is written: seconds to the microsecond, hertz to a tenth."""
    rows = ["\t".join(HEADER)]
    for phone in phones:
        hertz = "" if phone.hertz is None else f"{phone.hertz:.1f}"
        rows.append(f"{phone.phoneme}\t{phone.seconds:.6f}\t{hertz}")
    return "\n".join(rows) + "\n"
