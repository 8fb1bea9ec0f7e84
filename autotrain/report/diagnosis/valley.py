"""Whether a noisy curve falls to a lowest point and rises again, or only falls.

Two fits are compared, of which neither knows the shape: the best curve that never rises, and the
best that falls up to some point and never falls again (isotonic regression, by pooling adjacent
violators; Barlow et al., Statistical Inference under Order Restrictions, 1972). How much better
the second one fits, in units of the noise, says how sure the rise is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from autotrain.trends import NORMAL

# Second differences are taken of neighbours, and of points further apart: where those differ more,
# neighbours are alike, noise wanders, and a rise is sooner chance than it looks.
NEAR, FAR = 1, 3
# So many deviations of the noise no wandering explains.
CERTAIN = 10.0
# Fewer values than these do not tell how far they scatter.
FEW = 8


class Valley(NamedTuple):
    """The lowest point and what comes after it. `rise`: from `bottom` to the level at the end;
    `gain`: what a valley fits better than a fall, in variances of the noise; from `enough` on that
    is no chance: of 12,000 curves that only fall, of 8 to 200 points, under 1 % scored more.
    """

    at: int
    bottom: float
    end: float
    noise: float
    gain: float
    enough: float

    @property
    def sure(self) -> bool:
        """Whether it rises again, and not by chance."""
        return self.gain >= self.enough or self.rise >= CERTAIN * self.noise

    @property
    def rise(self) -> float:
        """From the lowest level to the one at the end."""
        return self.end - self.bottom


def noise(values: Sequence[float]) -> float:
    """Standard deviation of what is neither level nor slope; 0 for less than four values."""
    return max((_noise(values, lag) for lag in (NEAR, 2, FAR)), default=0.0)


def _noise(values: Sequence[float], lag: int) -> float:
    """By second differences over so many points; 0 where there are too few."""
    triples = zip(values, values[lag:], values[2 * lag :], strict=False)
    bends = [abs(a - 2 * b + c) / math.sqrt(6) for a, b, c in triples]
    return NORMAL * median(bends) if len(bends) >= 2 else 0.0


def _calmest(values: Sequence[float]) -> Sequence[float]:
    """All, or the second half where that is calmer: a steep beginning is no noise."""
    half = values[len(values) // 2 :]
    return half if len(half) >= FEW and noise(half) < noise(values) else values


def valley(values: Sequence[float], most_noise: float = math.inf, least: float = 0.0) -> Valley:
    """Of at least two values. `most_noise` is assumed where there are FEW; `least` is noise that
    there is in any case.
    """
    calm = _calmest(values)
    spread, alike = noise(calm), 1.0
    if len(values) < FEW:
        spread = min(most_noise, max(spread, least)) if math.isinf(most_noise) else most_noise
    elif (near := _noise(calm, NEAR)) > 0:
        more = max(_noise(calm, FAR) / near, 1.0)
        alike = more * more * more * more  # of absurd losses infinite, where ** raises
    spread = max(spread, least, 1e-12)
    falling = _errors(values)
    rising = [*reversed(_errors(values[::-1])), 0.0]
    both = [falling[i] + rising[i + 1] for i in range(len(values))]
    at = both.index(min(both))
    at += at + 1 < len(values) and values[at + 1] < values[at]
    # The lowest of many is low by chance too.
    bottom = min(fmean(values[max(at - 1, 0) : at + 2]), values[at] + spread)
    tail = values[at + 1 :]
    late = tail[-max(len(tail) // 3, min(len(tail), 2)) :] if tail else values[-1:]
    gain = (falling[-1] - both[at]) / (spread * spread) / alike
    return Valley(at, bottom, fmean(late), spread, gain, 8.0 + 4.0 * math.log(len(values)))


def _errors(values: Sequence[float]) -> list[float]:
    """What the best curve that never rises leaves of `values[: i + 1]`, squared, for each i."""
    blocks: list[tuple[float, int, float]] = []  # mean, count, squares left over
    total, found = 0.0, []
    for value in values:
        mean, count, left = value, 1, 0.0
        while blocks and blocks[-1][0] < mean:
            before, many, squares = blocks.pop()
            total -= squares
            both = many + count
            left += squares + (before - mean) * (before - mean) * many * count / both
            mean, count = (before * many + mean * count) / both, both
        blocks.append((mean, count, left))
        total += left
        found.append(total)
    return found
