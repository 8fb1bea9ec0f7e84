"""Speech as tensors: clips from files, log-magnitude spectra and back, batches padded alike."""

from __future__ import annotations

import functools
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch
from torchaudio.functional import griffinlim, resample

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.media import UnreadableError, blocks, open_clip
from autotrain.units import bytes_text

SILENCE_DB = -80.0  # a clip whose highest peak is below this, re full scale, holds nothing
LOUDEST = 10.0  # of full scale; beyond are whole numbers that were written as floats
VALUE_LIMIT = 1 << 28  # of a clip, over all channels: 93 minutes of one channel at 48 kHz
FILTER_LIMIT = 1 << 24  # elements: 64 MiB

_log = logging.getLogger(__name__)


def clip_seconds(path: Path) -> float:
    """Length of a clip by its header. Raises AutotrainError, naming it, if that is unreadable."""
    try:
        with open_clip(path) as clip:
            return float(clip.frames / clip.samplerate)
    except UnreadableError as problem:
        raise _unreadable(path, problem) from None


def load_clip(path: Path, rate: int, max_seconds: float | None = None) -> torch.Tensor:
    """A clip as float32 [samples] in -1..1 at `rate` hertz, its channels mixed to one.

    Reads the first `max_seconds` only. Another rate is resampled, said once per rate. Raises
    AutotrainError, naming the file, where it is unreadable, shorter than it says, too long for
    one sample, not finite, silent or far over full scale.
    """
    try:
        with open_clip(path) as clip:
            own_rate, wanted = int(clip.samplerate), int(clip.frames)
            if max_seconds is not None:
                wanted = min(wanted, math.ceil(max_seconds * own_rate))
            _refuse_long(wanted * clip.channels, wanted * rate / own_rate)
            mono = torch.cat([torch.from_numpy(b).mean(dim=1) for b in blocks(clip, wanted)])
            if own_rate != rate:
                _refuse_odd(own_rate, rate)
    except UnreadableError as problem:
        raise _unreadable(path, problem) from None
    if not bool(mono.isfinite().all()):
        raise AutotrainError(f"{path}: holds samples that are not finite")
    if mono.abs().max() < 10 ** (SILENCE_DB / 20):
        raise AutotrainError(f"{path}: silent, its peak is below {SILENCE_DB:g} dB")
    if mono.abs().max() > LOUDEST:
        raise AutotrainError(f"{path}: peaks at {mono.abs().max():g}, where full scale is 1")
    if own_rate != rate:
        _say_resampled(own_rate, rate)
        mono = resample(mono, own_rate, rate)
    return mono


def _refuse_long(*values: float) -> None:
    """A header may claim hours: these would not be decoded to see whether they are there."""
    if max(values) > VALUE_LIMIT:
        raise UnreadableError(f"takes over {bytes_text(4 * VALUE_LIMIT)} as one sample")


def _refuse_odd(own_rate: int, rate: int) -> None:
    """Between rates that share few factors the resampler's filter takes gigabytes."""
    shared = math.gcd(own_rate, rate)
    if (own_rate // shared) * (rate // shared) > FILTER_LIMIT:
        raise UnreadableError(f"{own_rate} Hz cannot be resampled to {rate} Hz")


def log_spectrum(
    samples: torch.Tensor, *, n_fft: int, window: int, hop: int, floor_db: float = SILENCE_DB
) -> torch.Tensor:
    """[samples] -> [samples // hop + 1, n_fft // 2 + 1] magnitudes in dB, at least `floor_db`.

    A Hann window of `window` samples around every `hop`-th sample, zero-padded to `n_fft`; a
    sine of full scale reads 0 dB.
    """
    hann = torch.hann_window(window)
    spectrum = torch.stft(
        samples, n_fft, hop, window, hann, center=True, pad_mode="constant", return_complex=True
    )
    magnitude = spectrum.abs() * (2 / hann.sum())
    return (20 * magnitude.clamp_min(10 ** (floor_db / 20)).log10()).T.contiguous()


def pad_frames(
    clips: Sequence[torch.Tensor], multiple: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """[frames, features] each -> [batch, longest, features] with zeros at the end, [batch].

    `longest` is rounded up to a `multiple`. Shapes then come again, and with them what is kept by
    shape: oneDNN's kernels for bf16 took a gigabyte in 200 batches of 200 lengths.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return torch.nn.functional.pad(padded, (0, 0, 0, -padded.shape[1] % multiple)), lengths


def _unreadable(path: Path, problem: UnreadableError) -> AutotrainError:
    return AutotrainError(f"{path}: unreadable audio ({problem})")


@functools.cache
def _say_resampled(own_rate: int, rate: int) -> None:
    _log.warning("clips of %d Hz are resampled to %d Hz", own_rate, rate)


def sound_of(
    spectrum_db: torch.Tensor, *, n_fft: int, window: int, hop: int, rounds: int = 32, seed: int = 0
) -> torch.Tensor:
    """[frames, n_fft // 2 + 1] as `log_spectrum` makes them -> [(frames - 1) * hop] samples, their
    phases by Griffin and Lim 1984. The same spectrum and seed give the same sound.
    """
    hann = torch.hann_window(window)
    magnitudes = 10 ** (spectrum_db.float().cpu().T / 20) * (hann.sum() / 2)
    wanted = (len(spectrum_db) - 1) * hop
    least = n_fft // hop + 2  # frames that the transform can be mirrored in
    missing = max(least - magnitudes.shape[1], 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        samples: torch.Tensor = griffinlim(
            torch.nn.functional.pad(magnitudes, (0, missing)), hann, n_fft, hop, window,
            power=1.0, n_iter=rounds, momentum=0.99, length=None, rand_init=True,
        )  # fmt: skip
    return samples[:wanted].clamp(-1, 1)


def write_clip(path: Path, samples: torch.Tensor, rate: int) -> None:
    """Write [samples] in -1..1 as a 16-bit WAV. Raises AutotrainError where that cannot be."""
    sound = io.BytesIO()
    soundfile.write(sound, samples.numpy(), rate, format="WAV", subtype="PCM_16")
    files.write_atomic(path, sound.getvalue())
