"""Mel spectra of clips: features for recognisers, targets for speakers, and back to sound.

Frame i looks at the samples around sample i * hop, so a clip of n samples has n // hop + 1 frames,
and a phoneme has the frames whose middle lies in it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchaudio.functional import resample
from torchaudio.transforms import (
    GriffinLim,
    InverseMelScale,
    MelScale,
    Spectrogram,
    SpeedPerturbation,
)

from autotrain.blocks import pitch
from autotrain.errors import AutotrainError

FLOOR = 1e-5  # of a magnitude, as in HiFi-GAN and most open vocoders
SPEEDS = (0.9, 1.0, 1.1)  # Ko 2015
ROUNDED = 0.01  # frames by which seconds that were written with six digits may miss


@dataclass(frozen=True)
class Mels:
    """How sound becomes log-mel spectra: natural logarithms of magnitudes in `bands` bands.

    `window` and `hop` in samples; `lowest` and `highest` (0: half the rate) in hertz.
    """

    rate: int = 16_000
    n_fft: int = 1024
    window: int = 800
    hop: int = 200
    bands: int = 80
    lowest: float = 0.0
    highest: float = 0.0

    def frames(self, samples: int) -> int:
        """Frames of a clip of so many samples."""
        return samples // self.hop + 1

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """[samples] -> [frames, bands]."""
        return self.with_energy(samples)[0]

    def with_energy(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[samples] -> [frames, bands] and the energy [frames]: a frame's magnitudes' L2 norm."""
        spectrum, to_mel, _, _ = _transforms(self)
        magnitudes = spectrum(samples)  # [bins, frames]
        bands = to_mel(magnitudes).clamp_min(FLOOR).log().T.contiguous()
        return bands, magnitudes.norm(dim=0)

    def pitch(self, samples: torch.Tensor) -> torch.Tensor:
        """[samples] -> [frames] hertz, 0 where no voice is heard."""
        hertz = pitch.pitch(samples.numpy(), self.rate, self.hop)
        return torch.from_numpy(hertz).float()

    def to_sound(self, mels: torch.Tensor, rounds: int = 32, seed: int = 0) -> torch.Tensor:
        """[frames, bands] -> [(frames - 1) * hop] samples, their phases by Griffin and Lim 1984.

        The same spectra and seed give the same sound. Raises AutotrainError for no frames.
        """
        if mels.dim() != 2 or mels.shape[1] != self.bands or not len(mels):
            raise AutotrainError(
                f"spectra of shape {tuple(mels.shape)}",
                f"[frames, {self.bands}], one frame at least",
            )
        wanted = (len(mels) - 1) * self.hop
        least = self.n_fft // self.hop + 2  # frames that the transform can be mirrored in
        silence = mels.new_full((max(least - len(mels), 0), self.bands), math.log(FLOOR))
        magnitudes = torch.cat([mels, silence]).float().exp().T
        _, _, to_bins, phases = _transforms(self, rounds)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            samples: torch.Tensor = phases(to_bins(magnitudes))
        return samples[:wanted]


@functools.lru_cache(maxsize=8)
def _transforms(mels: Mels, rounds: int = 32) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    sizes = {"n_fft": mels.n_fft, "win_length": mels.window, "hop_length": mels.hop}
    bins = mels.n_fft // 2 + 1
    bands = {
        "n_mels": mels.bands,
        "sample_rate": mels.rate,
        "f_min": mels.lowest,
        "f_max": mels.highest or mels.rate / 2,
    }
    return (
        Spectrogram(**sizes, power=1.0, pad_mode="constant"),
        MelScale(n_stft=bins, **bands),
        InverseMelScale(n_stft=bins, **bands, driver="gelsd"),  # bands may lie within one bin
        GriffinLim(**sizes, power=1.0, n_iter=rounds),
    )


def frames_of(seconds: Sequence[float], frames: int, mels: Mels) -> list[int]:
    """Seconds of each phoneme -> how many of a clip's frames have their middle in it.

    They add up to `frames`. A phoneme that lies between two middles has none.
    """
    ends, passed = [], 0.0
    for duration in seconds:
        passed += duration
        ends.append(min(math.ceil(passed * mels.rate / mels.hop - ROUNDED), frames))
    ends[-1:] = [frames] if ends else []
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def phoneme_means(values: torch.Tensor, durations: Sequence[int]) -> torch.Tensor:
    """[frames] and the frames of each phoneme -> [phonemes], the mean of its values that are not
    0, or 0: unvoiced frames have no pitch to count."""
    parts = torch.split(values, list(durations))
    counts = torch.stack([(part != 0).sum() for part in parts])
    return torch.stack([part.sum() for part in parts]) / counts.clamp_min(1)


class Normaliser(nn.Module):
    """Features less the training set's mean, in its standard deviations, per feature.

    `mean`, `deviation`: [features], kept as buffers, and so in every checkpoint.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("deviation", deviation.float().clone())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[..., features] -> the same shape."""
        return (features - self.mean) / self.deviation

    def undone(self, normalised: torch.Tensor) -> torch.Tensor:
        """[..., features] -> as they were."""
        return normalised * self.deviation + self.mean


def moments(
    clips: Iterable[torch.Tensor], least: float = 1e-3
) -> tuple[torch.Tensor, torch.Tensor]:
    """[frames, features] each -> mean and standard deviation [features] over all frames.

    A deviation is `least` at least: a feature that never moves would divide by nothing. Raises
    AutotrainError where there is no frame.
    """
    count, total, squares = 0, torch.tensor(0.0), torch.tensor(0.0)
    for clip in clips:
        values = clip.double()
        count += len(values)
        total = total + values.sum(dim=0)
        squares = squares + values.square().sum(dim=0)
    if not count:
        raise AutotrainError("no frames to take the mean of", "add clips")
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), deviation.clamp_min(least).float()


def at_speed(samples: torch.Tensor, rate: int, speed: float) -> torch.Tensor:
    """[samples] -> [samples / speed]: so many times as fast, pitch and all. Nothing is drawn."""
    return samples if speed == 1 else resample(samples, round(speed * rate), rate)


class SpeedPerturbed:
    """[samples] -> the samples a little faster or slower, pitch and all (Ko 2015).

    For `Augmented(train, SpeedPerturbed(16_000), first=...)`: one of `factors` is drawn for each
    sample. Count a clip's length for the slowest: `length / min(factors)`.
    """

    def __init__(self, rate: int, factors: Sequence[float] = SPEEDS) -> None:
        if not factors or not all(0.5 <= factor <= 2 for factor in factors):
            raise AutotrainError(f"speeds {list(factors)}", "factors from 0.5 to 2")
        self.rate, self.factors = rate, tuple(factors)
        self.change = SpeedPerturbation(rate, self.factors)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Faster, slower or as it was: one draw of torch's generator."""
        changed: torch.Tensor = self.change(samples)[0]
        return changed
