"""Which data this is, and which of its files are the same, without reading all of it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from autotrain.blocks.layouts.listing import TABLES, File, Listing
from autotrain.probe.findings import NAME_ERRORS, Findings, spread

CHUNK_BYTES = 1 << 16
WHOLE_BYTES = 4 * CHUNK_BYTES
WHOLE_TABLE_BYTES = 256 << 20
SAMPLED_FILES = 256
EDGE_BYTES = 1 << 12
DUPLICATE_CANDIDATES = 2000


def fingerprint(listing: Listing, data: Sequence[File], tables: Iterable[File]) -> str:
    """SHA-256 over names, sizes and some content: equal for equal data, wherever it lies.

    Names and sizes of all `data` and `tables`; the content of `tables` (of one over 256 MiB,
    four chunks) and of `SAMPLED_FILES` of the data (of one over 256 KiB, four chunks).
    Times and the folder's own place do not enter.
    """
    summary = hashlib.sha256()
    tables = list(tables)
    for file in sorted({*data, *tables}, key=lambda file: file.name):
        summary.update(f"{file.name}\0{file.size}\n".encode("utf-8", NAME_ERRORS))
    for file in [*spread(data, SAMPLED_FILES), *tables]:
        whole = WHOLE_TABLE_BYTES if file.suffix in (*TABLES, ".txt") else WHOLE_BYTES
        summary.update(content_digest(listing.path(file.name), file.size, whole))
    return summary.hexdigest()


def content_digest(path: Path, size: int, whole: int = WHOLE_BYTES) -> bytes:
    """SHA-256 of a file, or of four chunks from its start to its end where it is over `whole`.

    Of a file that cannot be read, a digest of that.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            if size <= whole:
                left = size
                while left > 0 and (block := file.read(min(left, 1 << 20))):
                    digest.update(block)
                    left -= len(block)
            else:
                for part in range(4):
                    file.seek((size - CHUNK_BYTES) * part // 3)
                    digest.update(file.read(CHUNK_BYTES))
    except OSError:
        digest.update(b"unreadable")
    return digest.digest()


def note_duplicates(listing: Listing, data: Sequence[File], findings: Findings) -> None:
    """Note files with the same content as another, by `content_digest`.

    At most `DUPLICATE_CANDIDATES` are opened.

    Only files of equal size are candidates, the smallest groups first: those are the likeliest.
    """
    by_size: defaultdict[int, list[File]] = defaultdict(list)
    for file in data:
        by_size[file.size].append(file)
    groups = sorted(
        (group for size, group in by_size.items() if size and len(group) > 1),
        key=lambda group: (len(group), group[0].size),
    )
    left = DUPLICATE_CANDIDATES
    for group in groups:
        for same in _same(listing, group[: max(left, 0)]):
            for file in same[1:]:
                findings.note(file.name, f"the same content as {same[0].name}")
        left -= len(group)


def _same(listing: Listing, group: Sequence[File]) -> list[list[File]]:
    """Files of one size with equal edges, and of those the ones with equal digests."""
    edges: defaultdict[bytes, list[File]] = defaultdict(list)
    for file in group:
        edges[_edges(listing.path(file.name), file.size)].append(file)
    contents: defaultdict[bytes, list[File]] = defaultdict(list)
    for alike in edges.values():
        for file in alike if len(alike) > 1 else ():
            contents[content_digest(listing.path(file.name), file.size)].append(file)
    return [same for same in contents.values() if len(same) > 1]


def _edges(path: Path, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            start = file.read(EDGE_BYTES)
            file.seek(max(size - EDGE_BYTES, 0))
            return start + file.read(EDGE_BYTES)
    except OSError:
        return str(path).encode("utf-8", NAME_ERRORS)
