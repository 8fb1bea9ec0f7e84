"""Clips as samples: sound and units for a recogniser, phonemes and their figures for a speaker.

A clip that turns out unreadable, silent or not as its table says is named once, and another takes
its place; over a tenth of such is refused (`samples.Loaded`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from autotrain.blocks.alignments import Phone, read_alignment
from autotrain.blocks.audio import clip_seconds, load_clip
from autotrain.blocks.layouts import Clip
from autotrain.blocks.layouts.listing import FAULTY_SHARE
from autotrain.blocks.mels import Mels, at_speed, frames_of, phoneme_means
from autotrain.blocks.samples import Loaded, keep_readable
from autotrain.blocks.units import Units


class Transcribed(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Index -> (samples [samples] at `rate` hertz, units of its text [units])."""

    def __init__(
        self, clips: Sequence[Clip], units: Units, rate: int, max_seconds: float | None = None
    ) -> None:
        self.units = units
        self.loaded = Loaded(
            clips, functools.partial(_samples, rate=rate, max_seconds=max_seconds), "clips"
        )

    def __len__(self) -> int:
        return len(self.loaded)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        used, samples = self.loaded[index]
        text = self.units.encode(self.loaded.items[used].text)
        return samples, torch.tensor(text, dtype=torch.long)


def _samples(clip: Clip, rate: int, max_seconds: float | None = None) -> torch.Tensor:
    return load_clip(clip.path, rate, max_seconds)


class Spectra(torch.utils.data.Dataset[tuple[Clip, torch.Tensor]]):
    """Index -> (the clip, its spectrum [frames, bands]), at one of `speeds` drawn at each reading.

    Several speeds (mels.SPEEDS) are for training only. What was computed is kept in half
    precision while it fits: a second of 80 bands at 80 frames takes 13 kB at each speed.
    """

    def __init__(self, clips: Sequence[Clip], mels: Mels, speeds: Sequence[float] = (1.0,)) -> None:
        self.speeds = tuple(speeds)
        at_each = [_AtSpeed(clip, speed) for clip in clips for speed in self.speeds]
        self.loaded = Loaded(at_each, functools.partial(_spectrum, mels=mels), "clips")

    def __len__(self) -> int:
        return len(self.loaded) // len(self.speeds)

    def __getitem__(self, index: int) -> tuple[Clip, torch.Tensor]:
        many = len(self.speeds)
        drawn = int(torch.randint(many, ())) if many > 1 else 0
        used, bands = self.loaded[index * many + drawn]
        return self.loaded.items[used].clip, bands.float()


class _AtSpeed(NamedTuple):
    clip: Clip
    speed: float


def _spectrum(item: _AtSpeed, mels: Mels) -> torch.Tensor:
    return mels(at_speed(load_clip(item.clip.path, mels.rate), mels.rate, item.speed)).half()


class AlignedClip(NamedTuple):
    """A clip with its phonemes, as the table beside it says."""

    clip: Clip
    phones: list[Phone]


def aligned_clips(
    clips: Sequence[Clip], least: int = 2, bears: float = FAULTY_SHARE
) -> list[AlignedClip]:
    """The clips with the phonemes beside them; those without, or whose phonemes do not add up to
    the clip, are named and skipped. Raises AutotrainError where they are more than `bears`."""
    found: list[AlignedClip] = []

    def check(clip: Clip) -> None:
        found.append(AlignedClip(clip, read_alignment(clip.path, clip_seconds(clip.path))))

    keep_readable(clips, check, "clips", least, bears)
    return found


class Voiced(NamedTuple):
    """What a speaker learns from a clip: `phonemes`, and of each `durations` in frames, `pitch` in
    hertz (0: unvoiced) and `energy`, all [phonemes]; `mels`: [frames, bands]; `speaker`: []."""

    phonemes: torch.Tensor
    durations: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor
    mels: torch.Tensor
    speaker: torch.Tensor


class Aligned(torch.utils.data.Dataset[Voiced]):
    """Index -> Voiced. Pitch is the table's, or measured where that has none; `speakers`: their
    names in the order of their numbers."""

    def __init__(
        self, clips: Sequence[AlignedClip], units: Units, mels: Mels, speakers: Sequence[str] = ()
    ) -> None:
        self.units, self.mels, self.speakers = units, mels, list(speakers)
        self.loaded = Loaded(clips, functools.partial(_figures, mels=mels), "clips")

    def __len__(self) -> int:
        return len(self.loaded)

    def __getitem__(self, index: int) -> Voiced:
        used, figures = self.loaded[index]
        clip, phones = self.loaded.items[used]
        durations = frames_of([phone.seconds for phone in phones], len(figures), self.mels)
        measured = phoneme_means(figures[:, -1], durations)
        said = (m if p.hertz is None else p.hertz for p, m in zip(phones, measured, strict=True))
        who = self.speakers.index(clip.speaker) if clip.speaker in self.speakers else 0
        return Voiced(
            torch.tensor(self.units.encode(" ".join(p.phoneme for p in phones)), dtype=torch.long),
            torch.tensor(durations),
            torch.tensor([float(hertz) for hertz in said]),
            phoneme_means(figures[:, -2], durations),
            figures[:, :-2],
            torch.tensor(who),
        )


def _figures(item: AlignedClip, mels: Mels) -> torch.Tensor:
    """[frames, bands + 2]: the spectrum, a frame's energy, and its pitch if that is not known."""
    samples = load_clip(item.clip.path, mels.rate)
    bands, energy = mels.with_energy(samples)
    known = all(phone.hertz is not None for phone in item.phones)
    hertz = torch.zeros(len(bands)) if known else mels.pitch(samples)
    return torch.cat([bands, energy[:, None], hertz[:, None]], dim=1)


class VoicedBatch(NamedTuple):
    """Voiced clips, padded with 0: `phonemes`, `durations`, `pitch`, `energy` [batch, phonemes] of
    which `counts` [batch] count; `mels` [batch, frames, bands] of which `frames` [batch] count;
    `speaker` [batch]."""

    phonemes: torch.Tensor
    durations: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor
    counts: torch.Tensor
    mels: torch.Tensor
    frames: torch.Tensor
    speaker: torch.Tensor


def pad_voiced(clips: Sequence[Voiced], multiple: int = 1) -> VoicedBatch:
    """A collate for Aligned's samples.

    `multiple`: phonemes and frames are padded to one of it. Of few shapes a CPU's kernels take
    less memory: oneDNN keeps those of each shape that it has met.
    """
    pad = functools.partial(_padded, multiple=multiple)
    return VoicedBatch(
        pad([c.phonemes for c in clips]),
        pad([c.durations for c in clips]),
        pad([c.pitch for c in clips]),
        pad([c.energy for c in clips]),
        torch.tensor([len(c.phonemes) for c in clips]),
        pad([c.mels for c in clips]),
        torch.tensor([len(c.mels) for c in clips]),
        torch.stack([c.speaker for c in clips]),
    )


def _padded(parts: list[torch.Tensor], multiple: int) -> torch.Tensor:
    padded = pad_sequence(parts, batch_first=True)
    more = -padded.shape[1] % multiple
    return torch.nn.functional.pad(padded, [0, 0] * (padded.dim() - 2) + [0, more])
