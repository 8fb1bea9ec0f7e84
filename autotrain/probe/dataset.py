"""What a dataset holds: recognised, counted, sampled, its faults named, without reading it all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autotrain.blocks.layouts.kinds import DataKind, kind_of, took_for
from autotrain.blocks.layouts.listing import (
    AUDIO,
    FEATURES,
    IMAGES,
    TABLES,
    TEXT_TABLES,
    File,
    Listing,
    list_files,
)
from autotrain.blocks.layouts.speech import TRANSCRIPT
from autotrain.probe.findings import Findings, printable
from autotrain.probe.fingerprint import fingerprint, note_duplicates
from autotrain.probe.surveys import (
    Survey,
    survey_features,
    survey_images,
    survey_speech,
    survey_table,
)
from autotrain.probe.tables import chosen
from autotrain.schema import DatasetProfile

SURVEYS: dict[DataKind, tuple[str, frozenset[str], Callable[[Listing, Findings], Survey]]] = {
    "images": ("images", IMAGES, survey_images),
    "speech": ("clips", AUDIO, survey_speech),
    "features": ("feature files", FEATURES, survey_features),
    "table": ("tables", TABLES, survey_table),
}


def probe_dataset(root: Path) -> DatasetProfile:
    """The profile of a folder of images, speech, features or tables, or of one table.

    `count` and `classes` are over all splits. Every file is counted, about 256 spread evenly
    are looked at, so `length` and `facts` are of those. A file that is missing, empty or
    unreadable is a fault and skipped.

    Raises AutotrainError where there is no such folder, it is empty or not recognised, has one
    class only, a malformed table, or where more than a tenth of its files are at fault.
    """
    listing, kind = _recognised(Path(root))
    noun, suffixes, survey = SURVEYS[kind]
    findings = Findings(Path(root), noun)
    findings.passed_over(listing, suffixes)
    found = survey(listing, findings)
    note_duplicates(listing, found.data, findings)
    files = {*found.data, *found.tables}
    return DatasetProfile(
        kind=kind,
        root=printable(str(root)),
        took_for=printable(took_for(listing, kind)),
        count=found.count,
        classes=found.classes,
        bytes=sum(file.size for file in files),
        length=found.length,
        facts=found.facts | ({"faults": findings.total} if findings.total else {}),
        faults=findings.faults,
        fingerprint=fingerprint(listing, found.data, found.tables),
    )


def data_now(root: Path) -> tuple[str, int]:
    """Fingerprint and bytes of a dataset, as in its profile, without looking into its samples.

    Raises AutotrainError where it is missing, or no longer recognised.
    """
    listing, kind = _recognised(root)
    data, tables = _FILES[kind](listing)
    size = sum(file.size for file in {*data, *tables})
    return fingerprint(listing, data, tables), size


def _speech_tables(listing: Listing) -> list[File]:
    return [f for f in listing.files if f.suffix in TEXT_TABLES or f.name.endswith(TRANSCRIPT)]


# The files of samples and those that describe them, as the surveys take them.
_FILES: dict[DataKind, Callable[[Listing], tuple[list[File], list[File]]]] = {
    "images": lambda found: (found.having(IMAGES), []),
    "speech": lambda found: (found.having(AUDIO), _speech_tables(found)),
    "features": lambda found: (found.having(FEATURES), found.having(TEXT_TABLES)),
    "table": lambda found: (chosen(found.having(TABLES)), []),
}


def _recognised(root: Path) -> tuple[Listing, DataKind]:
    """The files of a folder, or the one table named by itself, and what they are."""
    if root.suffix.lower() in TABLES and root.is_file():
        file = File(root.name, root.stat().st_size, root.suffix.lower())
        return Listing(root.parent, (file,), (), ()), "table"
    listing = list_files(root)
    return listing, kind_of(listing)
