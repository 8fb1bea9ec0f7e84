"""How far spoken sound is from what it should be: mel-cepstral distortion, along a warped time.

R. Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", 1993:
(10 / ln 10) * sqrt(2 * sum of (c_d - c'_d)^2 over d = 1..13) dB for a pair of frames. The zeroth
coefficient, how loud a frame is, stays out. Cepstra are such that the log spectrum is c_0 + sum of
c_d cos(d w), so that the figure is the dB by which two smoothed spectra differ, root mean square.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

COEFFICIENTS = 13
DECIBELS = 10 / math.log(10) * math.sqrt(2)
Array = np.ndarray[Any, np.dtype[np.float64]]


def mel_cepstra(mels: torch.Tensor, count: int = COEFFICIENTS) -> torch.Tensor:
    """Natural logarithms of magnitudes [..., bands] -> [..., count], from the first on."""
    bands = mels.shape[-1]
    middles = (torch.arange(bands, dtype=torch.float64) + 0.5) * math.pi / bands
    waves = torch.outer(middles, torch.arange(1, count + 1, dtype=torch.float64)).cos()
    return mels @ (waves * 2 / bands).to(mels)


def mel_cepstral_distortion(said: torch.Tensor, meant: torch.Tensor) -> tuple[float, int]:
    """(dB along the cheapest path, its pairs) between log-mel spectra [frames, bands] of any two
    lengths: sums for `measure`.

    One without frames counts as a frame of silence, whose spectrum is flat: else a model that says
    nothing of what is hard would be the better for it. (0, 0) where neither has any.
    """
    if not len(said) and not len(meant):
        return 0.0, 0
    first, second = (mel_cepstra(_heard(mels)) for mels in (said, meant))
    return cheapest_path(torch.cdist(first, second).numpy() * DECIBELS)


def _heard(mels: torch.Tensor) -> torch.Tensor:
    some = mels if len(mels) else mels.new_zeros(1, mels.shape[-1])
    return some.detach().cpu().double()


def cheapest_path(costs: Array) -> tuple[float, int]:
    """[rows, columns] -> (cost, pairs) of the cheapest way from the first pair to the last by
    steps of one row, one column, or both (dynamic time warping)."""
    rows, columns = costs.shape
    # By anti-diagonals, in each of which no pair waits for another: [i + 1] is pair (i, sum - i).
    older, before = _nowhere(rows), _nowhere(rows)
    older[0, 0] = 0.0  # before the first pair, and for it alone
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        ways = np.stack([older[:, i], before[:, i], before[:, i + 1]])
        found = np.take_along_axis(ways, ways[:, :1].argmin(axis=0)[None], axis=0)[0]
        new = _nowhere(rows)
        new[0, i + 1] = found[0] + costs[i, diagonal - i]
        new[1, i + 1] = found[1] + 1
        older, before = before, new
    return float(before[0, rows]), int(before[1, rows])


def _nowhere(rows: int) -> Array:
    """[cost and pairs, rows + 1] of a diagonal that no path has reached."""
    return np.stack([np.full(rows + 1, np.inf), np.zeros(rows + 1)])
