"""What each kind of dataset is made of: its samples, their lengths and what is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from autotrain.arrays import Frames
from autotrain.blocks.layouts.features import Features, signing_in
from autotrain.blocks.layouts.images import NameClasses, splits_in
from autotrain.blocks.layouts.listing import (
    AUDIO,
    FEATURES,
    IMAGES,
    TABLES,
    TEXT_TABLES,
    Absent,
    File,
    Listing,
)
from autotrain.blocks.layouts.speech import TRANSCRIPT, Speech, speech_in
from autotrain.errors import AutotrainError
from autotrain.probe.findings import Findings, percentiles, printable
from autotrain.probe.looking import Looker
from autotrain.probe.media import HEAD_FRAMES, Picture, Recording
from autotrain.probe.samples import look_at_samples, most_common
from autotrain.probe.tables import chosen, look_at_tables
from autotrain.schema import Percentiles, Scalar

PIXEL_BUDGET = 2e8
AUDIO_BUDGET = 3e7
ARRAY_BUDGET_BYTES = 2e8


@dataclass(frozen=True)
class Survey:
    """`data` are the files of samples, `tables` those that describe them."""

    data: list[File]
    tables: list[File]
    count: int
    classes: dict[str, int] = field(default_factory=dict)
    length: Percentiles | None = None
    facts: dict[str, Scalar] = field(default_factory=dict)


def survey_images(listing: Listing, findings: Findings) -> Survey:
    """Images in a folder per class. Raises AutotrainError for a single class."""
    data = listing.having(IMAGES)
    findings.lacks([Absent(file.name, "an empty file") for file in data if not file.size])
    findings.refuse_absent(sum(1 for file in data if file.size))
    splits = splits_in(listing)
    classes = splits.get("train") or splits["all"]
    _refuse_one_class(listing, classes)
    _note_classes(listing, splits, findings)
    used = [name for part in splits.values() for names in part.values() for name in names]
    _note_unused(data, used, findings)
    seen = look_at_samples(
        listing,
        sorted(used),
        findings,
        look=Looker[Picture]("image"),
        cost=lambda picture: picture.pixels,
        budget=PIXEL_BUDGET,
    )
    findings.refuse_unreadable(len(seen) + len(findings.unreadable))
    counts = Counter(
        {name: sum(len(part.get(name, ())) for part in splits.values()) for name in classes}
    )
    return Survey(
        data,
        [],
        len(used),
        {printable(name): count for name, count in counts.items()},
        percentiles("pixels", [picture.pixels for picture in seen.values()]),
        _picture_facts(list(seen.values())) | _split_facts(splits),
    )


def _refuse_one_class(listing: Listing, classes: NameClasses) -> None:
    if len(classes) > 1:
        return
    name, files = next(iter(classes.items()))
    inner = {file.split("/")[-2] for file in files} - {name}
    folder = listing.path(files[0].partition(f"{name}/")[0] + name)
    raise AutotrainError(
        f"{listing.root}: one class only: {printable(name)} ({len(files)} images)",
        f"name {folder} if its folders are the classes"
        if len(inner) > 1
        else "add a folder for each other class, or bring your own task: --task my_task.py",
    )


def _note_classes(listing: Listing, splits: dict[str, NameClasses], findings: Findings) -> None:
    for split, classes in splits.items():
        if split in ("all", "train"):
            for name, files in classes.items():
                if len(files) == 1:
                    findings.note(files[0], f"the only image of class {printable(name)}")
    inhabited = {file.name.rpartition("/")[0] for file in listing.files if file.size}
    above = {folder.split("/")[0] for folder in inhabited} | {
        "/".join(folder.split("/")[:2]) for folder in inhabited
    }
    depth = 0 if "all" in splits else 1
    for folder in listing.folders:
        if folder.count("/") == depth and folder not in above:
            findings.note(folder, "a class folder without images")


def _note_unused(data: list[File], used: list[str], findings: Findings) -> None:
    known = set(used)
    unused = [file.name for file in data if file.size and file.name not in known]
    if unused:
        more = f", nor do {len(unused) - 1} more" if len(unused) > 1 else ""
        findings.note(unused[0], f"does not lie in a class folder of a split{more}")


def _picture_facts(seen: list[Picture]) -> dict[str, Scalar]:
    if not seen:
        return {}
    widths, heights = sorted(p.width for p in seen), sorted(p.height for p in seen)
    return {
        "width_p50": widths[(len(widths) - 1) // 2],
        "height_p50": heights[(len(heights) - 1) // 2],
        "width_max": widths[-1],
        "height_max": heights[-1],
        "same_size": len({(p.width, p.height) for p in seen}) == 1,
        "modes": ", ".join(mode for mode, _ in Counter(p.mode for p in seen).most_common()),
        "sampled": len(seen),
    }


def _split_facts(splits: dict[str, NameClasses]) -> dict[str, Scalar]:
    if "all" in splits:
        return {}
    return {f"{split}_count": sum(map(len, part.values())) for split, part in splits.items()}


def survey_speech(listing: Listing, findings: Findings) -> Survey:
    """Clips, with transcripts or without."""
    speech = speech_in(listing)
    findings.lacks(speech.absent)
    findings.refuse_absent(len(speech.clips))
    data = listing.having(AUDIO)
    names = {str(listing.path(file.name)): file.name for file in data}
    clips = [names[str(clip.path)] for clip in speech.clips]
    seen = look_at_samples(
        listing,
        clips,
        findings,
        look=Looker[Recording]("recording"),
        cost=lambda clip: min(clip.frames, HEAD_FRAMES) * clip.channels,
        budget=AUDIO_BUDGET,
    )
    _note_recordings(seen, findings)
    findings.refuse_unreadable(len(seen) + len(findings.unreadable))
    for name, times in Counter(clips).items():
        if times > 1:
            findings.note(name, f"listed {times} times")
    if speech.has_text:
        for name, clip in zip(clips, speech.clips, strict=True):
            if not clip.text:
                findings.note(name, "an empty transcript")
    tables = [f for f in listing.files if f.suffix in TEXT_TABLES or f.name.endswith(TRANSCRIPT)]
    return Survey(
        data,
        tables,
        len(clips),
        length=percentiles("seconds", [clip.seconds for clip in seen.values()]),
        facts=_recording_facts(list(seen.values()), len(clips))
        | _transcript_facts(speech)
        | {"unlisted": len(data) - len({*clips})},
    )


def _note_recordings(seen: dict[str, Recording], findings: Findings) -> None:
    for what, unit in (("rate", "Hz"), ("channels", "channels")):
        usual = most_common([getattr(clip, what) for clip in seen.values()] or [0])
        other = [name for name, clip in seen.items() if getattr(clip, what) != usual]
        if other:
            value = getattr(seen[other[0]], what)
            share = f"{len(other)} of {len(seen)} sampled clips differ"
            findings.note(other[0], f"{value} {unit} where most have {usual}; {share}")
    for name, clip in seen.items():
        if clip.silent:
            findings.note(name, "silence")


def _recording_facts(seen: list[Recording], count: int) -> dict[str, Scalar]:
    if not seen:
        return {}
    mean = sum(clip.seconds for clip in seen) / len(seen)
    return {
        "sample_rate": most_common([clip.rate for clip in seen]),
        "sample_rates": ", ".join(map(str, sorted({clip.rate for clip in seen}))),
        "channels": most_common([clip.channels for clip in seen]),
        "mean_seconds": round(mean, 3),
        "total_hours": round(mean * count / 3600, 4),
        "sampled": len(seen),
    }


def _transcript_facts(speech: Speech) -> dict[str, Scalar]:
    speakers = {clip.speaker for clip in speech.clips if clip.speaker}
    facts: dict[str, Scalar] = {"speakers": len(speakers)} if speakers else {}
    if speech.has_text:
        lengths = sorted(len(clip.text) for clip in speech.clips)
        facts["characters_p50"] = lengths[(len(lengths) - 1) // 2]
        facts["characters_max"] = lengths[-1]
        facts["letters"] = len(set().union(*(clip.text for clip in speech.clips)))
    return facts


def survey_features(listing: Listing, findings: Findings) -> Survey:
    """Feature arrays with glosses."""
    signing = signing_in(listing)
    findings.lacks(signing.absent)
    findings.refuse_absent(len(signing.rows))
    data = listing.having(FEATURES)
    names = {str(listing.path(file.name)): file.name for file in data}
    rows = {names[str(row.path)]: row for row in signing.rows}
    seen = look_at_samples(
        listing,
        [*rows],
        findings,
        look=Looker[Frames]("features"),
        cost=lambda array: array.bytes,
        budget=ARRAY_BUDGET_BYTES,
    )
    _note_features(seen, rows, findings)
    findings.refuse_unreadable(len(seen) + len(findings.unreadable))
    glosses = [len(row.glosses) for row in signing.rows]
    facts: dict[str, Scalar] = {
        "glosses": len({gloss for row in signing.rows for gloss in row.glosses}),
        "mean_glosses": round(sum(glosses) / len(glosses), 3),
        "signers": len({row.signer for row in signing.rows} - {""}),
        "sampled": len(seen),
    }
    for split, count in sorted(Counter(row.split for row in signing.rows if row.split).items()):
        facts[f"{printable(split)}_count"] = count
    if seen:
        facts["feature_width"] = most_common([array.width for array in seen.values()])
        facts["array"] = most_common([array.name for array in seen.values()])
        facts["mean_frames"] = round(sum(a.frames for a in seen.values()) / len(seen), 3)
    tables = [file for file in listing.files if file.suffix in TEXT_TABLES]
    length = percentiles("frames", [array.frames for array in seen.values()])
    return Survey(data, tables, len(signing.rows), length=length, facts=facts)


def _note_features(seen: dict[str, Frames], rows: dict[str, Features], found: Findings) -> None:
    """Glosses that CTC cannot align, and arrays of another width, which are taken out."""
    usual = most_common([array.width for array in seen.values()] or [0])
    for name, array in list(seen.items()):
        if array.width != usual:
            found.cannot_read(name, f"{array.width} features a frame where most have {usual}")
            del seen[name]
    for name, row in rows.items():
        repeats = sum(a == b for a, b in zip(row.glosses, row.glosses[1:], strict=False))
        if not row.glosses:
            found.note(name, "no glosses")
        elif name in seen and len(row.glosses) + repeats > seen[name].frames:
            found.note(
                name, f"{len(row.glosses)} glosses, more than its {seen[name].frames} frames"
            )


def survey_table(listing: Listing, findings: Findings) -> Survey:
    """Rows of Parquet or text tables. Raises AutotrainError where there are none."""
    data = chosen(listing.having(TABLES))
    findings.lacks([Absent(file.name, "an empty file") for file in data if not file.size])
    present = [file for file in data if file.size]
    findings.refuse_absent(len(present))
    found = look_at_tables(listing, present, findings)
    findings.refuse_unreadable(len(present))
    rows = sum(table.rows for table in found)
    if not rows:
        raise AutotrainError(f"{listing.path(data[0].name)}: a table without rows", "add rows")
    facts: dict[str, Scalar] = {
        "columns": len(found[0].columns),
        "column_names": printable(", ".join(found[0].columns[:50])),
        "tables": len(found),
    }
    return Survey(data, [], rows, facts=facts)
