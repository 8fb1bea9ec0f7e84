"""Clips of speech with their transcripts: LJSpeech, Common Voice, LibriSpeech, or bare clips."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotrain.blocks.layouts.listing import (
    AUDIO,
    TEXT_TABLES,
    Absent,
    Index,
    Listing,
    list_files,
    refuse_absent,
)
from autotrain.blocks.layouts.rows import (
    column,
    delimiter_of,
    malformed,
    read_rows,
    read_table,
    text_lines,
)
from autotrain.errors import AutotrainError

PATH_COLUMNS = ("path", "file_name", "file", "filename", "audio", "clip")
TEXT_COLUMNS = ("sentence", "text", "transcription", "transcript", "normalized_text")
SPEAKER_COLUMNS = ("client_id", "speaker", "speaker_id")
SPLIT_COLUMNS = ("split", "set", "subset")
TABLES = ("metadata.csv", "metadata.tsv", "validated.tsv", "train.tsv", "transcripts.csv")
SPLIT_TABLES = ("train.tsv", "dev.tsv", "test.tsv")
TRANSCRIPT = ".trans.txt"
SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "val", "validation"),
    "test": ("test", "testing", "eval"),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording; `text`, `speaker` and `split` (train, valid or test) are empty where nothing
    says them."""

    path: Path
    text: str = ""
    speaker: str = ""
    split: str = ""


@dataclass(frozen=True)
class Speech:
    """The clips of a folder as its layout lists them, and those missing, empty or named twice."""

    layout: str
    clips: tuple[Clip, ...]
    absent: tuple[Absent, ...] = ()
    has_text: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    table: str
    number: int
    name: str
    text: str
    speaker: str
    folder: str
    split: str = ""


def speech_clips(root: Path, split: str | None = None) -> list[Clip]:
    """The clips of a folder, in the order of its table, or of their names where it has none.

    - LJSpeech: `metadata.csv` with lines `id|text|normalised[|speaker[|split]]`, clips in `wavs/`.
    - Common Voice: `validated.tsv` with `path` and `sentence`, clips in `clips/`; a clip's split is
      the table of `train.tsv`, `dev.tsv` and `test.tsv` that names it too. Without
      `validated.tsv`, those are read. Any table with such columns may have one named `split`.
    - LibriSpeech: `*.trans.txt` with lines `id TEXT` beside the clips; folders such as
      `train-clean-100` and `dev-clean` are splits.
    - any folder of .wav, .flac, .ogg, .opus or .mp3 files, without transcripts.

    A table lies at the top, or in the one folder that holds all the rest. Raises AutotrainError for
    a malformed line, where there are no clips, and where over a tenth of those listed, or of those
    of one `split`, are missing, empty or named twice with other words (fewer are left out; the
    probe names them).
    """
    speech = speech_in(list_files(root))
    refuse_absent(root, speech.absent, [clip.split for clip in speech.clips], split)
    return list(speech.clips)


def speech_in(listing: Listing) -> Speech:
    """As `speech_clips`, with what is absent. Raises AutotrainError where there is no clip."""
    table = transcript_table(listing)
    if table is not None:
        return _matched(listing, *table)
    files = listing.having(AUDIO)
    if not files:
        raise AutotrainError(
            f"{listing.root}: no clips (.wav, .flac, .ogg, .opus, .mp3)",
            "name the folder that holds the recordings",
        )
    clips = tuple(Clip(listing.path(file.name)) for file in files if file.size)
    absent = tuple(Absent(file.name, "an empty file") for file in files if not file.size)
    return Speech("folder of clips without transcripts", clips, absent)


def transcript_table(listing: Listing) -> tuple[str, Iterator[_Line]] | None:
    """The layout's name and its lines, not read yet; None where nothing holds transcripts."""
    tables = listing.in_top(TEXT_TABLES)
    names = {file.name.rpartition("/")[2].lower(): file.name for file in tables}
    for table in (names[known] for known in TABLES if known in names):
        if delimiter_of(listing.path(table)) == "|":
            return f"LJSpeech table {table}", _ljspeech(listing, table)
        header, _ = read_table(listing.path(table))
        if column(header, *PATH_COLUMNS) is not None and column(header, *TEXT_COLUMNS) is not None:
            kind = "Common Voice table" if "sentence" in header else "transcript table"
            parts = [names[part] for part in SPLIT_TABLES if part in names]
            if table in parts:
                several = "s" if len(parts) > 1 else ""
                return f"{kind}{several} {', '.join(parts)}", _split_tables(listing, parts)
            return f"{kind} {table}", _with_header(listing, table, parts)
    if any(file.name.endswith(TRANSCRIPT) for file in listing.files):
        return "LibriSpeech tree", _librispeech(listing)
    return None


def _split_tables(listing: Listing, tables: Sequence[str]) -> Iterator[_Line]:
    """One table a split, one after the other. Of `train.tsv` alone nothing says it is a split."""
    for table in tables:
        named = _split_of(table) if len(tables) > 1 else ""
        for line in _with_header(listing, table):
            yield replace(line, split=line.split or named)


def _splits(listing: Listing, tables: Sequence[str]) -> dict[str, str]:
    """The clips that these tables name, and what split that makes them."""
    splits: dict[str, str] = {}
    for table in tables:
        named = _split_of(table)
        splits |= {line.name: named for line in _with_header(listing, table)}
    return splits


def _split_of(table: str) -> str:
    return split_named(table.rpartition("/")[2].partition(".")[0])


def _beside(table: str, folder: str) -> str:
    """The folder of that name beside a table."""
    return "/".join(filter(None, (table.rpartition("/")[0], folder)))


def split_named(word: str) -> str:
    """train, valid or test for the usual words of it, `train-clean-100` say; else empty."""
    first = re.split(r"[-_.]", word.strip().lower(), maxsplit=1)[0]
    return next((split for split, words in SPLITS.items() if first in words), "")


def _ljspeech(listing: Listing, table: str) -> Iterator[_Line]:
    path, folder = listing.path(table), _beside(table, "wavs")
    for number, cells in read_rows(path, "|"):
        if not 2 <= len(cells) <= 5 or not cells[0].strip():
            raise malformed(path, number, "not `id|text|normalised text`")
        if number == 1 and cells[0].strip().lower() in ("id", *PATH_COLUMNS):
            continue
        normalised = cells[2].strip() if len(cells) > 2 else ""
        speaker = cells[3].strip() if len(cells) > 3 else ""
        split = _split(path, number, cells[4]) if len(cells) > 4 else ""
        text = normalised or cells[1].strip()
        yield _Line(table, number, cells[0].strip(), text, speaker, folder, split)


def _split(path: Path, number: int, cell: str) -> str:
    named = split_named(cell)
    if cell.strip() and not named:
        raise malformed(path, number, f"split {cell.strip()!r} is none of train, valid and test")
    return named


def _with_header(listing: Listing, table: str, parts: Sequence[str] = ()) -> Iterator[_Line]:
    """`parts`: tables that name the clips of one split each."""
    path, folder = listing.path(table), _beside(table, "clips")
    splits = _splits(listing, parts)
    header, rows = read_table(path)
    file, text = column(header, *PATH_COLUMNS), column(header, *TEXT_COLUMNS)
    speaker, split = column(header, *SPEAKER_COLUMNS), column(header, *SPLIT_COLUMNS)
    assert file is not None
    assert text is not None
    for number, cells in rows:
        if not cells[file].strip():
            raise malformed(path, number, f"no {header[file]}")
        name, who = cells[file].strip(), "" if speaker is None else cells[speaker].strip()
        side = splits.get(name, "") if split is None else _split(path, number, cells[split])
        yield _Line(table, number, name, cells[text].strip(), who, folder, side)


def _librispeech(listing: Listing) -> Iterator[_Line]:
    for file in listing.files:
        if not file.name.endswith(TRANSCRIPT):
            continue
        folder = file.name.rpartition("/")[0]
        split = next(filter(None, map(split_named, folder.split("/"))), "")
        for number, line in enumerate(text_lines(listing.path(file.name)), start=1):
            clip, *rest = line.strip().split(maxsplit=1) or [""]
            text = "".join(rest)
            if clip:
                name = f"{folder}/{clip}" if folder else clip
                speaker = clip.partition("-")[0] if "-" in clip else ""
                yield _Line(file.name, number, name, text, speaker, folder, split)


def _matched(listing: Listing, layout: str, lines: Iterator[_Line]) -> Speech:
    index = Index(listing, AUDIO)
    clips: list[Clip] = []
    absent: list[Absent] = []
    for line in lines:
        said, where = (line.text, line.speaker, line.split), f"{line.table}:{line.number}"
        found = index.take(line.name, where, said, folder=line.folder, split=line.split)
        if isinstance(found, Absent):
            absent.append(found)
        elif found is not None:
            clips.append(Clip(listing.path(found.name), *said))
    if not clips and not absent:
        raise AutotrainError(f"{listing.root}: its {layout} lists no clips", "add lines to it")
    return Speech(layout, tuple(clips), tuple(absent), has_text=True)
