"""Clips that a speaker may learn from: which they are, and what is usual in them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from autotrain.blocks.alignments import PAUSE, Phone
from autotrain.blocks.audio import clip_seconds, load_clip
from autotrain.blocks.layouts import Clip
from autotrain.blocks.layouts.listing import FAULTY_SHARE
from autotrain.blocks.mels import moments
from autotrain.blocks.samples import keep_readable
from autotrain.blocks.spoken import Aligned, AlignedClip, aligned_clips
from autotrain.blocks.units import Units
from autotrain.errors import AutotrainError

CHECKED_SECONDS = 600.0  # a corpus up to here is decoded at once, a larger one checked by header
STATISTICS = 200  # clips, evenly spread, for what is usual
_PAIRS = ("bands", "pitch", "energy")
QUIETEST = 1e-2  # of energy, for its logarithm

_log = logging.getLogger(__name__)


def speakable(
    clips: Sequence[Clip], max_seconds: float, rate: int, least: int = 2,
    bears: float = FAULTY_SHARE,
) -> dict[Clip, AlignedClip]:  # fmt: skip
    """The clips that can be learned from, in order, with their phonemes.

    Others are named and skipped: unreadable, over `max_seconds`, without a transcript where others
    have one, without phonemes beside pauses, or with such as do not add up to the clip; of a small
    corpus silent ones too, which are else found when they are read. Raises AutotrainError where
    more than `bears` of them are skipped.
    """
    written = any(clip.text for clip in clips)
    seconds: dict[Clip, float] = {}

    def look(clip: Clip) -> None:
        seconds[clip] = clip_seconds(clip.path)
        if written and not clip.text.strip():
            raise AutotrainError(f"{clip.path}: an empty transcript")
        if seconds[clip] > max_seconds:
            raise AutotrainError(f"{clip.path}: {seconds[clip]:.1f} s, over {max_seconds:g} s")

    def listen(item: AlignedClip) -> None:
        if all(phone.phoneme == PAUSE for phone in item.phones):
            raise AutotrainError(f"{item.clip.path}: no phonemes but pauses")
        if sum(seconds.values()) <= CHECKED_SECONDS:
            load_clip(item.clip.path, rate)

    found = keep_readable(clips, look, "clips", least, bears)
    aligned = aligned_clips(found, least, bears)
    heard = keep_readable(aligned, listen, "clips", least, bears)
    return {item.clip: item for item in heard}


def known(items: Sequence[AlignedClip], units: Units, speakers: Sequence[str]) -> list[AlignedClip]:
    """The held-out clips whose phonemes and speaker are in the training too; the others, of which
    a model knows nothing, are named and left out."""
    kept = []
    for item in items:
        try:
            units.encode(spelled(item.phones))
        except AutotrainError as error:
            _log.warning("left out: %s: %s", item.clip.path, error.message)
            continue
        if item.clip.speaker in speakers:
            kept.append(item)
        else:
            _log.warning(
                "left out: %s: %s speaks in no training clip", item.clip.path, item.clip.speaker
            )
    return kept


def spelled(phones: Sequence[Phone]) -> str:
    """Phonemes as units read them."""
    return " ".join(phone.phoneme for phone in phones)


class Usual(NamedTuple):
    """What the training clips are like: mean and deviation of each band, of the logarithm of the
    pitch in hertz and of the energy of phonemes, and how many frames one lasts."""

    bands: tuple[torch.Tensor, torch.Tensor]
    pitch: tuple[torch.Tensor, torch.Tensor]
    energy: tuple[torch.Tensor, torch.Tensor]
    frames: float

    def record(self) -> dict[str, Any]:
        """As JSON, for a task's facts."""
        pairs = {name: [each.tolist() for each in getattr(self, name)] for name in _PAIRS}
        return {**pairs, "frames": self.frames}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Usual:
        """From its `record`."""
        bands, pitch, energy = (
            (torch.tensor(record[name][0]), torch.tensor(record[name][1])) for name in _PAIRS
        )
        return cls(bands, pitch, energy, float(record["frames"]))


def usual_of(clips: Aligned) -> Usual:
    """What is usual in some of the training clips, evenly spread."""
    some = [clips[i] for i in range(0, len(clips), -(-len(clips) // STATISTICS))]
    pitch = torch.cat([clip.pitch[clip.pitch > 0] for clip in some])
    energy = torch.cat([clip.energy[clip.durations > 0] for clip in some])
    if not len(pitch):
        pitch = torch.ones(1)  # nobody has a voice: all are whispering
    return Usual(
        moments(clip.mels for clip in some),
        moments([pitch.log()[:, None]]),
        moments([energy.clamp_min(QUIETEST).log()[:, None]]),
        sum(len(clip.mels) for clip in some) / sum(len(clip.phonemes) for clip in some),
    )
