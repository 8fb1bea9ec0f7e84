"""Curves as a picture can show them: few points, and no extreme lost."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]
# So many stretches a curve is cut into; of each the lowest and the highest point are kept.
STRETCHES = 500
# From so many points on, what is drawn boldly is a running mean over a fortieth of the curve.
SMOOTHED = 80
# More than this between the least and the most, and a logarithmic scale shows more.
WIDE = 10.0


class Curve(NamedTuple):
    """What is drawn boldly, and faintly behind it the points themselves, or their extremes."""

    x: Series
    y: Series
    raw_x: Series
    raw_y: Series

    @property
    def shown(self) -> Series:
        """All values that the picture has to have room for."""
        return np.concatenate([self.y, self.raw_y])

    def bare(self) -> Curve:
        """Without the points behind it."""
        return self._replace(raw_x=self.raw_x[:0], raw_y=self.raw_y[:0])


def curve(x: Series, y: Series) -> Curve:
    """Of figures over steps; what is not finite is left out."""
    kept = np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) < SMOOTHED:
        return Curve(x, y, x[:0], y[:0])
    raw = extremes(x, y)
    x, y = means(x, y)
    return Curve(x, smooth(y), *raw)


def plain(x: Series, y: Series) -> Curve:
    """The points as they are, extremes kept; nothing is smoothed."""
    kept = np.isfinite(y)
    x, y = extremes(x[kept], y[kept])
    return Curve(x, y, x[:0], y[:0])


def extremes(x: Series, y: Series) -> tuple[Series, Series]:
    """The lowest and the highest point of each stretch, in their order; the first and the last."""
    if len(x) <= 2 * STRETCHES:
        return x, y
    edges = np.linspace(0, len(x), STRETCHES + 1).astype(int)
    chosen = {0, len(x) - 1}
    for start, end in pairwise(edges.tolist()):
        part = y[start:end]
        chosen |= {int(start + part.argmin()), int(start + part.argmax())}
    index = np.array(sorted(chosen))
    return x[index], y[index]


def means(x: Series, y: Series) -> tuple[Series, Series]:
    """The mean of each stretch."""
    every = math.ceil(len(x) / STRETCHES)
    if every <= 1:
        return x, y
    starts = np.arange(0, len(x), every)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def smooth(y: Series) -> Series:
    """A centred running mean over a fortieth of the curve."""
    half = len(y) // SMOOTHED
    if half < 1:
        return y
    total = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
    found: Series = (total[high] - total[low]) / (high - low)
    return found


def reach(shown: Series, *, wide: float = WIDE) -> tuple[float, float, bool]:
    """(low, high, logarithmic) of a vertical axis with room for these values."""
    if not len(shown):
        return 0.0, 1.0, False
    low, high = float(shown.min()), float(shown.max())
    if low > 0 and high > wide * low:
        return low / 1.15, high * 1.15, True
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room, False


def ticks(low: float, high: float, *, log: bool, most: int = 6) -> list[float]:
    """Round values to mark on an axis, from `low` to `high`."""
    if log:
        return _log_ticks(low, high, most)
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(m for m in (1, 2, 5, 10, 20) if (high - low) / (m * step) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    for parts in ((1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [p * 10.0**n for n in decades for p in parts if low <= p * 10.0**n <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]
