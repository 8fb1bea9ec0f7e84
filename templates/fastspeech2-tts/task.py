"""Text to speech, FastSpeech 2 (Ren 2020): phonemes to spectra by predicted length, pitch, energy.

python -m autotrain.blocks.corpus speech --hours 1
autotrain plan speech --template fastspeech2-tts
autotrain run plan.toml
autotrain predict runs/... "The old sailor found a golden key."
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from autotrain import Kept, Loss, Task
from autotrain.blocks.audio import clip_seconds
from autotrain.blocks.distortion import mel_cepstral_distortion
from autotrain.blocks.fastspeech import FeedForwards, Near, VariancePredictor, regulated
from autotrain.blocks.invented import Invented
from autotrain.blocks.layouts import Clip, speech_clips
from autotrain.blocks.losses import inside
from autotrain.blocks.mels import Mels, Normaliser
from autotrain.blocks.options import all_between, needed
from autotrain.blocks.samples import FEW
from autotrain.blocks.speakable import QUIETEST, Usual, known, speakable, usual_of
from autotrain.blocks.speaking import Speaking, Wish
from autotrain.blocks.spoken import Aligned, AlignedClip, Voiced, VoicedBatch, pad_voiced
from autotrain.blocks.transcripts import Sides, side, sides
from autotrain.blocks.units import FIRST, KeptUnits, Units, symbols
from autotrain.blocks.vocoding import vocoder as made_sound

SHAPES = 16  # batches are of a multiple of so many phonemes and frames
LONGEST = 100  # frames of one phoneme that is predicted
ANYBODY = "anybody"  # the speaker of a corpus that names none


@dataclass(frozen=True)
class Sizes:
    """Of the blocks of encoder and decoder, and of the predictors."""

    width: int
    heads: int
    inner: int
    kernel: int
    encoder: int
    decoder: int
    dropout: float


class Told(NamedTuple):
    """What a model says, normalised: `mels` [batch, frames, bands]; of each phoneme [batch,
    phonemes] `durations`, as log(1 + frames), `pitch` and `energy`."""

    mels: torch.Tensor
    durations: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor


class Facts(NamedTuple):
    """What a model needs to know of its corpus: its `phonemes`, its `speakers` in the order of
    their numbers, what is `usual`, as `Usual.record` has it, and the `language` it is read by."""

    phonemes: list[str]
    speakers: list[str]
    usual: dict
    language: str


class Parts(NamedTuple):
    """The clips by what they are for, and the phonemes of each."""

    sides: Sides
    found: dict[Clip, AlignedClip]


class FastSpeech2(nn.Module):
    """Phonemes -> vectors -> length, pitch and energy of each -> frames -> spectra.

    Units, speakers and what is usual are kept in every checkpoint.
    """

    def __init__(self, units: Units, speakers: Units, usual: Usual, sizes: Sizes):
        super().__init__()
        width, kernel, dropout = sizes.width, sizes.kernel, sizes.dropout
        self.units, self.speakers = KeptUnits(units), KeptUnits(speakers)
        self.bands = Normaliser(*usual.bands)
        self.usual_pitch, self.usual_energy = Normaliser(*usual.pitch), Normaliser(*usual.energy)
        self.phoneme = nn.Embedding(units.count, width)
        self.voice = nn.Embedding(speakers.count, width)
        blocks = (sizes.heads, sizes.inner, kernel, dropout)
        self.encoder = FeedForwards(width, sizes.encoder, *blocks)
        self.decoder = FeedForwards(width, sizes.decoder, *blocks)
        self.duration, self.pitch, self.energy = (
            VariancePredictor(width, 3, min(2 * dropout, 0.9)) for _ in range(3)
        )
        self.by_pitch, self.by_energy = Near(1, width, 3), Near(1, width, 3)
        self.place = nn.Linear(2, width)
        self.out = nn.Linear(width, len(usual.bands[0]))
        for embedding in (self.phoneme, self.voice):
            nn.init.normal_(embedding.weight, std=0.5)

    def forward(self, phonemes, counts, speaker, durations, pitch, energy, time: int) -> Told:
        """Taught: with the `durations` in frames, of `time` at most, and the normalised `pitch` and
        `energy` that are meant, all [batch, phonemes] of which `counts` [batch] count."""
        vectors, kept = self.read(phonemes, counts, speaker)
        said = (self.duration(vectors, kept), self.pitch(vectors, kept))
        vectors = vectors + self.by_pitch(pitch[..., None], kept)
        loud = self.energy(vectors, kept)
        return Told(self.spectra(vectors, energy, kept, durations, time), *said, loud)

    def read(self, phonemes, counts, speaker) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [batch, phonemes, width], and which of them count."""
        kept = inside(counts, phonemes.shape[1])
        return self.encoder(self.phoneme(phonemes), kept) + self.voice(speaker)[:, None], kept

    def spectra(self, vectors, energy, kept, durations, time: int | torch.Tensor) -> torch.Tensor:
        """Normalised, [batch, time, bands]; of each sample its durations' sum counts."""
        vectors = vectors + self.by_energy(energy[..., None], kept)
        frames, places = regulated(vectors, durations * kept, time)
        there = inside((durations * kept).sum(dim=1), time)
        return self.out(self.decoder(frames + self.place(places), there))

    def speak(self, phonemes, counts, speaker, wish: Wish) -> tuple[torch.Tensor, torch.Tensor]:
        """Untaught -> log-mel spectra [batch, frames, bands] and durations in frames [batch,
        phonemes]: each as `wish` has it."""
        vectors, kept = self.read(phonemes, counts, speaker)
        lasts = (self.duration(vectors, kept).float().exp() - 1) / wish.speed  # ONNX has no expm1
        durations = lasts.round().clamp(0, LONGEST).long() * kept
        pitch = self.pitch(vectors, kept)
        vectors = vectors + self.by_pitch(self.higher(pitch, wish)[..., None], kept)
        louder = math.log(wish.energy) / self.usual_energy.deviation
        energy = self.energy(vectors, kept) + louder
        time = durations.sum(dim=1).amax().clamp_min(1)
        told = self.spectra(vectors, energy, kept, durations, time)
        return self.bands.undone(told.float()), durations

    def higher(self, pitch: torch.Tensor, wish: Wish) -> torch.Tensor:
        return pitch + wish.pitch * math.log(2) / 12 / self.usual_pitch.deviation


class Voice(nn.Module):
    """A FastSpeech2 for other programs: (phonemes [batch, phonemes], counts [batch], speaker
    [batch]) -> log-mel spectra [batch, frames, bands], and each phoneme's frames [batch, phonemes].
    """

    def __init__(self, model: FastSpeech2):
        super().__init__()
        self.model = model

    def forward(self, phonemes: torch.Tensor, counts: torch.Tensor, speaker: torch.Tensor):
        return self.model.speak(phonemes, counts, speaker, Wish(""))


def exported(model: FastSpeech2, batch: VoicedBatch) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """It speaks, untaught."""
    return Voice(model), (batch.phonemes, batch.counts, batch.speaker)


def meant(model: FastSpeech2, batch: VoicedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Pitch and energy of each phoneme, normalised; 0 where none is heard."""
    heard = batch.durations > 0
    pitch = model.usual_pitch(batch.pitch.clamp_min(1.0).log()) * (heard & (batch.pitch > 0))
    energy = model.usual_energy(batch.energy.clamp_min(QUIETEST).log()) * heard
    return pitch, energy


class Learning:
    """The loss and the figures."""

    def __init__(self, mels: Mels, frames: float):
        self.seconds, self.frames = mels.hop / mels.rate, frames

    def loss(self, model: FastSpeech2, batch: VoicedBatch) -> Loss:
        """A sum over frames: the absolute error of their bands, and the squared ones of what is
        predicted of a phoneme, which counts as many frames as phonemes last on average."""
        pitch, energy = meant(model, batch)
        told = model(
            batch.phonemes, batch.counts, batch.speaker, batch.durations, pitch, energy,
            batch.mels.shape[1],
        )  # fmt: skip
        there = inside(batch.frames, batch.mels.shape[1])
        apart = (told.mels.float() - model.bands(batch.mels)).abs().mean(dim=-1)
        kept = inside(batch.counts, batch.phonemes.shape[1])
        heard = kept & (batch.durations > 0)

        def squared(said: torch.Tensor, aim: torch.Tensor, counting: torch.Tensor) -> torch.Tensor:
            return ((said.float() - aim).square() * counting).sum() * self.frames

        parts = {
            "mel": (apart * there).sum(),
            "duration": squared(told.durations, batch.durations.float().log1p(), kept),
            "pitch": squared(told.pitch, pitch, heard),
            "energy": squared(told.energy, energy, heard),
        }
        return Loss(total=sum(parts.values()), weight=batch.frames.sum(), parts=parts)

    def measure(self, model: FastSpeech2, batch: VoicedBatch) -> dict:
        """Spoken untaught: `mcd` in dB of a pair of frames, `duration_ms` of a phoneme."""
        said, durations = model.speak(batch.phonemes, batch.counts, batch.speaker, Wish(""))
        lengths = zip(durations.sum(dim=1).tolist(), batch.frames.tolist(), strict=True)
        found = [
            mel_cepstral_distortion(said[place, :mine], batch.mels[place, :theirs])
            for place, (mine, theirs) in enumerate(lengths)
        ]
        wrong = (durations - batch.durations).abs().sum() * self.seconds * 1e3
        distortion = (sum(apart for apart, _ in found), sum(pairs for _, pairs in found))
        return {"mcd": distortion, "duration_ms": (wrong, batch.counts.sum())}


def shared_out(data: Path, valid_share: float, max_seconds: float, rate: int) -> Parts:
    """The clips of a corpus, by what they are for."""
    found = speakable(speech_clips(data), max_seconds, rate)
    return Parts(sides([*found], valid_share), found)


def asked_for(
    data: Path | None, split: str | None, valid_share: float, max_seconds: float, rate: int
) -> Parts:
    """The clips of one split, or none at all; the others need not be there."""
    parts = Sides([], [], [])
    if split is None:
        return Parts(parts, {})
    look = functools.partial(speakable, max_seconds=max_seconds, rate=rate, **FEW)
    found = side(speech_clips(data, split), split, valid_share, look)
    return Parts(parts._replace(**{split: [*found]}), found)


def facts_of(parts: Parts, mels: Mels, language: str) -> Facts:
    """What there is to know of the clips for training."""
    clips = parts.sides.train
    speakers = sorted({clip.speaker for clip in clips})
    units = symbols([[p.phoneme for p in parts.found[clip].phones] for clip in clips])
    some = Aligned([parts.found[clip] for clip in clips], units, mels, speakers)
    return Facts([*units.names], speakers, usual_of(some).record(), language)


def invented(units: Units, speakers: Units, bands: int) -> Invented:
    """Clips of nothing, of the form of those that a model learned from."""

    def clip(index: int) -> Voiced:
        count = 8 + 5 * index
        lasts = torch.randint(1, 9, (count,))
        return Voiced(
            torch.randint(FIRST, units.count, (count,)), lasts,
            100 + 50 * torch.rand(count), torch.rand(count), torch.randn(int(lasts.sum()), bands),
            torch.randint(speakers.count - FIRST, ()),
        )  # fmt: skip

    return Invented(clip)


def task(
    data: Path | None,
    *,
    width: int = 128,
    heads: int = 2,
    inner: int = 384,
    kernel: int = 3,
    encoder_blocks: int = 3,
    decoder_blocks: int = 3,
    dropout: float = 0.1,
    rate: int = 16_000,
    window: int = 1024,
    hop: int = 256,
    bands: int = 80,
    highest: float = 0.0,
    vocoder: str = "",
    max_seconds: float = 20.0,
    valid_share: float = 0.05,
    language: str = "",
    kept: Kept | None = None,
) -> Task:
    """`data`: a corpus with phonemes beside each clip (autotrain.blocks.alignments).

    - `width`, `heads`, `inner` (channels of the convolution), `kernel` and `dropout` of the blocks,
      of which the encoder has `encoder_blocks` and the decoder `decoder_blocks`.
    - `rate` in hertz, `window` and `hop` in samples, `bands` up to `highest` hertz (0: all).
    - `vocoder`: an .onnx file of your own, [1, bands, frames] -> samples; none: Griffin-Lim.
    - `max_seconds`: longer clips are left out; that a sentence takes longer to speak is told.
    - `valid_share` of the sentences is held out where the corpus names no split.
    - `language`: espeak-ng's voice (`de`, `fa`) by which `predict` reads a text, where a speaker's
      name is none; empty: `en-us`.
    """
    all_between([
        ("width", width, 8, 4096), ("heads", heads, 1, 64), ("inner", inner, 8, 16_384),
        ("kernel", kernel, 1, 31), ("encoder_blocks", encoder_blocks, 1, 64),
        ("decoder_blocks", decoder_blocks, 1, 64), ("dropout", dropout, 0, 0.95),
        ("rate", rate, 4000, 96_000), ("window", window, 64, 16_384), ("hop", hop, 16, window),
        ("bands", bands, 16, 512), ("highest", highest, 0, rate / 2),
        ("max_seconds", max_seconds, 0.5, 120), ("valid_share", valid_share, 0.01, 0.9),
    ])  # fmt: skip
    fft = 1 << (window - 1).bit_length()
    mels = Mels(rate, fft, window, hop, bands, highest=highest)
    corpus = (
        None if kept and kept.split is None else needed(data, "a corpus of speech with phonemes")
    )
    if kept is None:
        parts = shared_out(corpus, valid_share, max_seconds, rate)
    else:
        parts = asked_for(corpus, kept.split, valid_share, max_seconds, rate)
    facts = Facts(**kept.facts) if kept else facts_of(parts, mels, language)
    units, speakers = symbols([facts.phonemes]), facts.speakers
    names, usual = symbols([[speaker or ANYBODY for speaker in speakers]]), Usual.of(facts.usual)

    def samples(clips: list[Clip]) -> Aligned:
        there = known([parts.found[clip] for clip in clips], units, speakers)
        return Aligned(there, units, mels, speakers)

    train, valid, test = (samples(clips) for clips in parts.sides)
    if corpus is None:
        train = invented(units, names, bands)
    sizes = Sizes(width, heads, inner, kernel, encoder_blocks, decoder_blocks, dropout)
    learning, sound = Learning(mels, usual.frames), made_sound(vocoder, mels)
    speaking = Speaking(mels, sound, language=facts.language, longest=max_seconds)
    lengths = [[clip_seconds(clip.path) * rate / hop for clip in part] for part in parts.sides[:2]]
    return Task(
        model=lambda: FastSpeech2(units, names, usual, sizes),
        train=train,
        valid=valid if len(valid) or kept else None,
        test=test if len(test) else None,
        collate=functools.partial(pad_voiced, multiple=SHAPES),
        loss=learning.loss,
        measure=learning.measure,
        length=lengths[0].__getitem__,
        valid_length=lengths[1].__getitem__,
        monitor="mcd",
        predict=speaking.predict,
        export=exported,
        facts=facts._asdict(),
    )
