"""How high a voice is: its fundamental frequency per frame, by autocorrelation (Boersma 1993).

P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise
ratio of a sampled sound", 1993: the autocorrelation of a windowed frame is divided by that of
the window, its peaks are candidates, and the cheapest way through all frames is taken. numpy
alone, because the processes that make a corpus do without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LOWEST, HIGHEST = 60.0, 500.0  # hertz; speech of grown-ups and most children
PERIODS = 3  # of the lowest pitch in a window
CANDIDATES = 5
VOICED_FROM = 0.45  # of a perfect period's correlation
SILENCE = 0.03  # of the clip's peak
OCTAVE_COST, OCTAVE_JUMP, TURN = 0.03, 0.35, 0.14  # jumps and turns as Praat has them, per 10 ms
SMOOTH = 1500.0  # hertz

Array = np.ndarray[Any, np.dtype[np.float64]]


def pitch(
    samples: Any, rate: int, hop: int, lowest: float = LOWEST, highest: float = HIGHEST
) -> Array:
    """[samples] -> [samples // hop + 1] hertz around every `hop`-th sample, 0 where unvoiced."""
    wave = np.asarray(samples, dtype=np.float64)
    loudest = float(np.abs(wave).max(initial=0.0))
    frames = len(wave) // hop + 1
    if loudest == 0:
        return np.zeros(frames)
    window = int(PERIODS * rate / lowest)
    padded = np.pad(wave, (window // 2, window))
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[: frames * hop : hop][:frames]
    hertz, strength = _candidates(cut, rate, lowest, highest)
    loudness = np.abs(cut - cut.mean(axis=1, keepdims=True)).max(axis=1) / loudest
    return _cheapest(hertz, strength, _unvoiced(loudness), hop / rate / 0.01)


def _candidates(cut: Any, rate: int, lowest: float, highest: float) -> tuple[Array, Array]:
    """[frames, window] -> hertz and strength [frames, CANDIDATES]; strength 0: none."""
    window = cut.shape[1]
    hann = np.hanning(window + 2)[1:-1]
    shortest, longest = int(rate / highest), min(int(np.ceil(rate / lowest)), window - 2)
    size = 1 << (window + longest + 1).bit_length()  # longer lags may wrap around
    own = np.fft.irfft(np.abs(np.fft.rfft(hann, size)) ** 2)[: longest + 2]
    framed = (cut - cut.mean(axis=1, keepdims=True)) * hann
    # High harmonics make peaks so narrow that one of an octave below may lie nearer to a sample.
    smooth = 1 / (1 + (np.fft.rfftfreq(size, 1 / rate) / SMOOTH) ** 4)
    power = np.abs(np.fft.rfft(framed, size, axis=1)) ** 2 * smooth
    raw = np.fft.irfft(power, axis=1)[:, : longest + 2]
    zero = np.maximum(raw[:, :1], 1e-12)
    similar = raw / zero / (own / own[0])
    low, middle, high = (similar[:, shortest - 1 + i : longest + i] for i in range(3))
    peak = (middle > low) & (middle >= high)
    bend = low - 2 * middle + high
    shift = np.where(peak, 0.5 * (low - high) / np.where(bend == 0, 1, bend), 0.0)
    height = np.where(peak, middle - 0.25 * (low - high) * shift, 0.0)
    hertz = rate / (np.arange(shortest, longest + 1) + shift)
    height = np.minimum(height, 2 - height)  # above 1 it is noise: the window's share was small
    keep = np.argsort(-(height - OCTAVE_COST * np.log2(lowest / hertz)), axis=1)[:, :CANDIDATES]
    strength: Array = np.maximum(np.take_along_axis(height, keep, axis=1), 0.0)
    return np.take_along_axis(hertz, keep, axis=1), strength


def _unvoiced(loudness: Any) -> Array:
    """[frames] -> how good it is to call each unvoiced: the better, the quieter."""
    good: Array = VOICED_FROM + np.maximum(0.0, 2 - loudness / (SILENCE / (1 + VOICED_FROM)))
    return good


def _cheapest(hertz: Array, strength: Array, unvoiced: Array, tens: float) -> Array:
    """The best way through [frames, CANDIDATES] and unvoiced (Viterbi); [frames] hertz."""
    frames = len(hertz)
    goods = np.concatenate(
        [unvoiced[:, None], np.where(strength > 0, strength + OCTAVE_COST * np.log2(hertz), -9)],
        axis=1,
    )
    goods[:, 1:] -= OCTAVE_COST * np.log2(HIGHEST)
    octaves = np.log2(hertz)
    turn, jump = TURN / tens, OCTAVE_JUMP / tens
    best, came = goods[0], np.zeros(goods.shape, dtype=int)
    cost = np.zeros((goods.shape[1],) * 2)
    cost[0, 1:] = cost[1:, 0] = turn
    for frame in range(1, frames):
        cost[1:, 1:] = jump * np.abs(octaves[frame - 1][:, None] - octaves[frame][None, :])
        total = best[:, None] - cost
        came[frame] = total.argmax(axis=0)
        best = total.max(axis=0) + goods[frame]
    state, path = int(best.argmax()), np.zeros(frames)
    for frame in range(frames - 1, -1, -1):
        path[frame] = hertz[frame, state - 1] if state else 0.0
        state = int(came[frame, state])
    return path


def voiced_mean(values: Any, ends: Sequence[int]) -> list[float]:
    """[frames], 0 where unvoiced, and where each phoneme ends -> the mean of each one's voiced
    frames, 0 where there are none."""
    means, start = [], 0
    for end in ends:
        part = np.asarray(values[start:end])
        means.append(float(part[part > 0].mean()) if (part > 0).any() else 0.0)
        start = end
    return means
