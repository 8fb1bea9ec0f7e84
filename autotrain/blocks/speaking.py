"""From a text to a WAV: what is wished for, its phonemes as a corpus of espeak-ng's has them."""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from autotrain.blocks.alignments import PAUSE
from autotrain.blocks.corpus.espeak import Espeak, Manner
from autotrain.blocks.mels import Mels
from autotrain.blocks.units import KeptUnits
from autotrain.blocks.vocoding import Vocoder, write_wav
from autotrain.errors import AutotrainError

ELSE = "en-us"  # by which espeak-ng reads where it has no voice of a speaker's name
RANGES = {"speed": (0.25, 4.0), "pitch": (-24.0, 24.0), "energy": (0.1, 10.0)}

_WISHES = re.compile(r"\s*\[([^\[\]]*)\]")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?;।॥؟۔])\s+|(?<=[。！？；])")


_log = logging.getLogger(__name__)


class Wish(NamedTuple):
    """What is to be said, and how: `voice` empty: any; `speed` times as fast, `pitch` so many
    semitones higher, `energy` times as loud; `language`, by whose espeak-ng voice it is read."""

    text: str
    voice: str = ""
    speed: float = 1.0
    pitch: float = 0.0
    energy: float = 1.0
    language: str = ""


def read_wish(given: str) -> Wish:
    """`[voice=anna language=de speed=1.2 pitch=-3 energy=0.8] Der Text.`, or just the text.

    Raises AutotrainError, naming it, for a wish that is not known or out of its range, and where
    there is no text.
    """
    found = _WISHES.match(given)
    text = given[found.end() if found else 0 :].strip()
    if not text:
        raise AutotrainError("an empty text: there is nothing to say", "give a sentence")
    wish = Wish(text)
    for each in found.group(1).split() if found else ():
        name, _, value = each.partition("=")
        if name in ("voice", "language") and value:
            wish = Wish(**{**wish._asdict(), name: value})
        elif name in RANGES:
            wish = Wish(**{**wish._asdict(), name: _number(name, value)})
        else:
            raise AutotrainError(
                f"[{each}] is no wish", "voice=, language=, speed=, pitch= or energy="
            )
    return wish


def _number(name: str, text: str) -> float:
    low, high = RANGES[name]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise AutotrainError(f"[{name}={text}] is no number from {low:g} to {high:g}")
    return value


def sentences_of(text: str) -> list[str]:
    """The sentences of a text: what was trained on sentences speaks one at a time."""
    parts = _SENTENCE_ENDS.split(text.strip())
    return [part for part in parts if any(map(str.isalnum, part))] or [text]


def phonemes_of(text: str, voices: Sequence[str]) -> list[str]:
    """The phonemes that espeak-ng speaks a text in, pauses included, by the first of the voices
    that it has. Raises AutotrainError where it is not installed, has none, or says nothing."""
    espeak = _espeak()
    voice = next((voice for voice in voices if espeak.has(voice)), None)
    if voice is None:
        raise AutotrainError(
            f"espeak-ng has no voice {' or '.join(voices)}", "`espeak-ng --voices` lists them"
        )
    phonemes = [name for name, _, _ in espeak.say(text, Manner(voice)).spans()]
    if all(name == PAUSE for name in phonemes):
        raise AutotrainError(f"nothing is spoken of {text!r}", "give a sentence")
    return phonemes


@functools.cache
def _espeak() -> Espeak:
    return Espeak()


class Speaker(Protocol):
    """A model that speaks, as this module asks it to."""

    units: KeptUnits
    speakers: KeptUnits

    def speak(
        self, phonemes: torch.Tensor, counts: torch.Tensor, speaker: torch.Tensor, wish: Wish
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[batch, phonemes] of which `counts` [batch] count, and `speaker` [batch] -> log-mel
        spectra [batch, frames, bands] and each phoneme's frames [batch, phonemes]."""


class Speaking:
    """A task's `predict`: a text, and how it is wished to be, becomes a WAV.

    `language`: the espeak-ng voice by which a speaker reads whose name is no such voice. The model
    was trained on clips of up to `longest` seconds; that a sentence takes longer is said.
    """

    def __init__(
        self, mels: Mels, sound: Vocoder, *, language: str = "", longest: float = math.inf
    ) -> None:
        self.mels, self.sound, self.language, self.longest = mels, sound, language, longest

    @torch.no_grad()
    def predict(self, model: Speaker, given: str, out: Path) -> dict[str, Any]:
        """`{"wav": path, "seconds": ..., "voice": ..., "phonemes": ...}`; without a wish for a
        voice the first one speaks. Raises AutotrainError, naming what cannot be spoken."""
        wish = read_wish(given)
        names = model.speakers.units.names
        voice = wish.voice or names[0]
        if voice not in names:
            raise AutotrainError(f"no voice {voice!r} was trained", f"one of: {', '.join(names)}")
        by = [wish.language] if wish.language else [voice, self.language or ELSE]
        said, spectra = [], []
        for sentence in sentences_of(wish.text):
            said.append(" ".join(phonemes_of(sentence, by)))
            spectra.append(_spoken(model, said[-1], names.index(voice), wish))
            if (took := len(spectra[-1]) * self.mels.hop / self.mels.rate) > self.longest:
                _log.warning(
                    "%.1f s for %r, and the model learned from clips of up to %g s: shorter "
                    "sentences may sound better", took, sentence, self.longest,
                )  # fmt: skip
        path = out / "speech.wav"
        seconds = write_wav(path, self.sound(torch.cat(spectra)), self.mels.rate)
        return {
            "wav": str(path),
            "seconds": round(seconds, 3),
            "voice": voice,
            "phonemes": " ".join(said),
        }


def _spoken(model: Speaker, phonemes: str, voice: int, wish: Wish) -> torch.Tensor:
    """Log-mel spectra [frames, bands] of a sentence, in fp32 on the CPU."""
    place = model.speakers.table.device
    try:
        numbers = torch.tensor([model.units.units.encode(phonemes)], device=place)
    except AutotrainError as error:
        raise AutotrainError(
            f"no training clip has phonemes of this text: {error.message}",
            "is it of another language? `[language=de] ...`, or task.options.language",
        ) from None
    count = torch.tensor([numbers.shape[1]], device=place)
    mels, durations = model.speak(numbers, count, torch.tensor([voice], device=place), wish)
    if not int(durations.sum()):
        raise AutotrainError(
            f"no time at all for {phonemes!r}", "train the model on, or wish for a lower speed"
        )
    return mels[0].float().cpu()
