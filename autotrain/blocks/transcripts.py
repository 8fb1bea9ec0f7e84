"""Clips and what is said in them: which may be learned from, and which are held out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from autotrain.blocks.audio import clip_seconds
from autotrain.blocks.ctc import frames_needed
from autotrain.blocks.layouts import Clip
from autotrain.blocks.layouts.listing import FAULTY_SHARE
from autotrain.blocks.normalising import language_of, normalised
from autotrain.blocks.samples import keep_readable, of_split, split_by_name
from autotrain.blocks.units import Units
from autotrain.errors import AutotrainError

Known = TypeVar("Known")
_log = logging.getLogger(__name__)


class Sides(NamedTuple):
    """The clips of a corpus by what they are for; `test` may be empty."""

    train: list[Clip]
    valid: list[Clip]
    test: list[Clip]


def readable_texts(
    clips: Sequence[Clip], language: str | None = None, least: int = 2, bears: float = FAULTY_SHARE
) -> list[Clip]:
    """The clips with their texts normalised; those whose text is empty, or cannot be read as it is
    written, are named and skipped. Raises AutotrainError where more than `bears` of them are.

    `language`: their code, empty where it is not known; None: told by the texts, see `language_of`.
    """
    if language is None:
        language = language_of(clip.text for clip in clips)
    normalise = functools.partial(normalised, language=language)
    texts: dict[Clip, str] = {}

    def check(clip: Clip) -> None:
        try:
            texts[clip] = normalise(clip.text)
        except AutotrainError as error:
            raise AutotrainError(f"{clip.path}: {error.message}") from None
        if not texts[clip]:
            raise AutotrainError(f"{clip.path}: no transcript" + (" but signs" * bool(clip.text)))

    kept = keep_readable(clips, check, "transcripts", least, bears)
    numbers = sum(any(map(str.isdecimal, texts[clip])) for clip in kept)
    if numbers:
        _log.warning(
            "%d of %d transcripts have numbers in digits, which are learned as they are written: "
            "write them as they are spoken (of English, that is done where the language is `en`)",
            numbers, len(kept),
        )  # fmt: skip
    return [replace(clip, text=texts[clip]) for clip in kept]


def clips_up_to(
    most: float, clips: Sequence[Clip], least: int = 1, bears: float = FAULTY_SHARE
) -> dict[Clip, float]:
    """The clips of up to `most` seconds, and their seconds by their headers.

    Longer ones, and those whose header cannot be read, are named and skipped: a part of a clip is
    not what its transcript says. Raises AutotrainError where they are more than `bears`.
    """
    seconds: dict[Clip, float] = {}

    def check(clip: Clip) -> None:
        seconds[clip] = clip_seconds(clip.path)
        if seconds[clip] > most:
            raise AutotrainError(f"{clip.path}: {seconds[clip]:.1f} s, over {most:g} s")

    return {clip: seconds[clip] for clip in keep_readable(clips, check, "clips", least, bears)}


def within_units(
    clips: Sequence[Clip], units: Units, least: int = 1, bears: float = FAULTY_SHARE
) -> list[Clip]:
    """The clips whose texts the units can write; others are named, with the letters, and skipped.

    Raises AutotrainError where they are more than `bears`: the units are of another language then.
    """

    def check(clip: Clip) -> None:
        try:
            units.encode(clip.text)
        except AutotrainError as error:
            raise AutotrainError(f"{clip.path}: {error.message}") from None

    return keep_readable(clips, check, "transcripts", least, bears)


def long_enough(
    clips: Sequence[Clip], units: Units, frames: Callable[[Clip], int], least: int = 1,
    bears: float = FAULTY_SHARE,
) -> list[Clip]:  # fmt: skip
    """The clips that have the frames CTC needs: one a unit, and one between two equal ones.

    `frames`: how many a clip has where CTC reads them. Others are named and skipped; more than
    `bears` of them are refused.
    """

    def check(clip: Clip) -> None:
        text, has = units.encode(clip.text), frames(clip)
        if (needs := frames_needed(text)) > has:
            raise AutotrainError(
                f"{clip.path}: {len(text)} units need {needs} frames, it has {has}"
            )

    return keep_readable(clips, check, "clips", least, bears)


def said_in(clip: Clip) -> str:
    """What a clip is held out by: its words, or its name where nothing says them."""
    return clip.text or clip.path.name


def sides(
    clips: Sequence[Clip], valid_share: float, alike: Callable[[Clip], str] = said_in
) -> Sides:
    """Clips by the split that their layout names; where it names no validation, a share is held
    out by a hash of the words, so that no sentence is on both sides.

    `alike`: clips of the same answer stay together. Where all of them do, clips are held out by
    their names, and that is said. Clips without a split beside clips with one are left out, and
    counted aloud: Common Voice has those, and their sentences may be in the test. Raises
    AutotrainError where one clip is all there is to train and validate on.
    """
    named = {split: [c for c in clips if c.split == split] for split in ("train", "valid", "test")}
    rest = [clip for clip in clips if not clip.split]
    if rest and any(named.values()):
        _log.warning("%d of %d clips are in no split, and left out", len(rest), len(clips))
    train = named["train"] if any(named.values()) else rest
    if not train:
        raise AutotrainError(f"none of {len(clips)} clips is for training", "name a split `train`")
    if named["valid"]:
        return Sides(train, named["valid"], named["test"])
    return Sides(*_held_out(train, valid_share, alike), named["test"])


def _held_out(
    clips: list[Clip], share: float, alike: Callable[[Clip], str]
) -> tuple[list[Clip], list[Clip]]:
    if len(clips) < 2:
        raise AutotrainError(f"{clips[0].path}: one clip, 2 are the least to train on", "add clips")
    keys = sorted({alike(clip) for clip in clips})
    if len(keys) < 2:
        _log.warning("all clips say the same: the figures say nothing of other words")
        kept, held = split_by_name([clip.path.name for clip in clips], share)
        return [clips[i] for i in kept], [clips[i] for i in held]
    chosen = {keys[i] for i in split_by_name(keys, share)[1]}
    train = [clip for clip in clips if alike(clip) not in chosen]
    return train, [clip for clip in clips if alike(clip) in chosen]


def insist_on_both(parts: Sides) -> Sides:
    """The same. Raises AutotrainError where nothing is left to train on, or to validate on."""
    for what, clips in (("train", parts.train), ("validate", parts.valid)):
        if not clips:
            raise AutotrainError(
                f"no clip is left to {what} on: all were skipped",
                "see above for why of each; correct them, or hold out a larger share",
            )
    return parts


def side(
    clips: Sequence[Clip], split: str, valid_share: float,
    look: Callable[[list[Clip]], dict[Clip, Known]], alike: Callable[[Clip], str] = said_in,
) -> dict[Clip, Known]:  # fmt: skip
    """The clips of one split, as `sides` has them, and what `look` knows of each. `look` -> those
    that can be used, see `of_split`."""
    known: dict[Clip, Known] = {}

    def looked(some: list[Clip]) -> list[Clip]:
        known.update(look(some))
        return [*known]

    found = of_split(
        clips, split, lambda clip: clip.split, looked,
        lambda usable: sides(usable, valid_share, alike),
    )  # fmt: skip
    return {clip: known[clip] for clip in found}
