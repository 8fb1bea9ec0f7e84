"""Feature arrays (.npz) with a table of their glosses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotrain.blocks.layouts.listing import (
    FEATURES,
    TEXT_TABLES,
    Absent,
    Index,
    Listing,
    list_files,
    refuse_absent,
)
from autotrain.blocks.layouts.rows import column, malformed, read_table
from autotrain.blocks.layouts.speech import split_named
from autotrain.errors import AutotrainError

FILE_COLUMNS = ("file", "path", "file_name", "filename", "npz")
GLOSS_COLUMNS = ("glosses", "gloss")
SIGNER_COLUMNS = ("signer", "signer_id", "speaker")
SPLIT_COLUMNS = ("split", "subset")


@dataclass(frozen=True, slots=True)
class Features:
    """One .npz of a signed sentence; `glosses` in order, as its table gives them."""

    path: Path
    glosses: tuple[str, ...]
    signer: str = ""
    split: str = ""


@dataclass(frozen=True)
class Signing:
    """The feature files of a folder as its table lists them, and those missing, empty or
    named twice."""

    table: str
    rows: tuple[Features, ...]
    absent: tuple[Absent, ...] = ()


def feature_table(root: Path, split: str | None = None) -> list[Features]:
    """The rows of the .csv or .tsv with columns `file, glosses[, signer, split]`, in its order.

    Glosses are separated by spaces. Raises AutotrainError for a malformed line, where there is
    no such table or file, and where over a tenth of the files it names, or of those of one `split`,
    are missing, empty or named twice with other glosses (fewer are left out; the probe names them).
    """
    signing = signing_in(list_files(root))
    refuse_absent(root, signing.absent, [split_named(row.split) for row in signing.rows], split)
    return list(signing.rows)


def gloss_table(listing: Listing) -> str | None:
    """The name of the first table at the top that has a file and a gloss column; others may be of
    any kind. Raises AutotrainError where there is none but one that cannot be read."""
    unread = None
    for file in listing.in_top(TEXT_TABLES):
        try:
            header, _ = read_table(listing.path(file.name))
        except AutotrainError as error:
            unread = unread or error
            continue
        if column(header, *FILE_COLUMNS) is not None and column(header, *GLOSS_COLUMNS) is not None:
            return file.name
    if unread is not None:
        raise unread
    return None


def signing_in(listing: Listing) -> Signing:
    """As `feature_table`, with what is absent."""
    table = gloss_table(listing)
    if table is None:
        raise AutotrainError(
            f"{listing.root}: no table with the columns `file` and `glosses`",
            "write one beside the .npz files: `file,glosses,signer,split`",
        )
    path = listing.path(table)
    header, lines = read_table(path)
    file, gloss = column(header, *FILE_COLUMNS), column(header, *GLOSS_COLUMNS)
    signer, split = column(header, *SIGNER_COLUMNS), column(header, *SPLIT_COLUMNS)
    assert file is not None
    assert gloss is not None
    index = Index(listing, FEATURES)
    rows: list[Features] = []
    absent: list[Absent] = []
    for number, cells in lines:
        name = cells[file].strip()
        if not name:
            raise malformed(path, number, f"no {header[file]}")
        who = "" if signer is None else cells[signer].strip()
        part = "" if split is None else cells[split].strip().lower()
        said = (tuple(cells[gloss].split()), who, part)
        found = index.take(name, f"{table}:{number}", said, split=split_named(part))
        if isinstance(found, Absent):
            absent.append(found)
        elif found is not None:
            rows.append(Features(listing.path(found.name), *said))
    if not rows and not absent:
        raise AutotrainError(f"{path}: lists no feature files", "add a row for each .npz file")
    return Signing(table, tuple(rows), tuple(absent))
