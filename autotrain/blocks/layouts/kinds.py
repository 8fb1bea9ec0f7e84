"""What a folder holds, recognised by its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from autotrain.blocks.layouts.features import gloss_table
from autotrain.blocks.layouts.images import splits_in
from autotrain.blocks.layouts.listing import (
    AUDIO,
    FEATURES,
    IMAGES,
    TABLES,
    Listing,
    list_files,
)
from autotrain.blocks.layouts.speech import speech_in, transcript_table
from autotrain.errors import AutotrainError

DataKind = Literal["images", "speech", "features", "table"]
KNOWN = (
    "a folder per class of images (in train/ and valid/, or not); speech with metadata.csv and "
    "wavs/ (LJSpeech), validated.tsv and clips/ (Common Voice) or *.trans.txt (LibriSpeech), or "
    "bare .wav, .flac, .ogg, .mp3 clips; .npz features with a table `file,glosses`; .parquet or "
    ".csv tables"
)


def data_kind(root: Path) -> tuple[DataKind, str]:
    """What `root` holds and what it was taken for: ("images", "folder per class: 10 classes").

    Raises AutotrainError, naming what was found and what was looked for.
    """
    root = Path(root)
    if root.suffix.lower() in TABLES and root.is_file():
        return "table", f"{root.suffix[1:].lower()} table"
    listing = list_files(root)
    kind = kind_of(listing)
    return kind, took_for(listing, kind)


def kind_of(listing: Listing) -> DataKind:
    """A table that names clips or features decides; else there are most of images or clips."""
    features, clips = listing.having(FEATURES), listing.having(AUDIO)
    images = [file for file in listing.having(IMAGES) if "/" in file.name]
    if features and gloss_table(listing) is not None:
        return "features"
    if transcript_table(listing) is not None:
        return "speech"
    if images and len(images) >= len(clips):
        return "images"
    if clips:
        return "speech"
    if listing.having(TABLES):
        return "table"
    raise _unrecognised(listing)


def took_for(listing: Listing, kind: DataKind) -> str:
    """One line for a person: which layout it is and how much of it there is."""
    if kind == "images":
        splits = splits_in(listing)
        classes = len(splits.get("train") or splits["all"])
        where = "" if "all" in splits else f" in {', '.join(splits)}"
        return f"folder per class{where}: {classes} {'class' if classes == 1 else 'classes'}"
    if kind == "speech":
        speech = speech_in(listing)
        return f"{speech.layout}: {len(speech.clips)} clips"
    if kind == "features":
        return f"features with glosses in {gloss_table(listing)}"
    return ", ".join(file.name for file in listing.having(TABLES)[:3])


def _unrecognised(listing: Listing) -> AutotrainError:
    flat = [file for file in listing.having(IMAGES) if "/" not in file.name]
    if flat:
        return AutotrainError(
            f"{listing.root}: {len(flat)} images, but not in a folder per class",
            "put the images of each class into a folder named after the class, "
            "or say how to read them: --task my_task.py",
        )
    if listing.having(FEATURES):
        return AutotrainError(
            f"{listing.root}: .npz files, but no table with the columns `file` and `glosses`",
            "write one beside them: `file,glosses,signer,split`, "
            "or say how to read them: --task my_task.py",
        )
    found = listing.suffix_text() or "nothing that can be read"
    return AutotrainError(
        f"{listing.root}: not recognised; found {found}; known are {KNOWN}",
        "say how to read it: --task my_task.py",
    )
