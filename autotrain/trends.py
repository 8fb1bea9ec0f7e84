"""Whether a few noisy figures rise, fall or stand still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import fmean, median

# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL = 1.4826
# Two standard errors: 95 %.
SURE = 2.0


def wobble(values: Sequence[float]) -> float:
    """Standard deviation of the noise, from differences of neighbours, which a trend hardly
    touches: robust against single outliers. 0 for less than three values.
    """
    steps = [b - a for a, b in pairwise(values)]
    if len(steps) < 2:
        return 0.0
    middle = median(steps)
    return NORMAL * median(abs(step - middle) for step in steps) / math.sqrt(2)


def trend(values: Sequence[float]) -> float:
    """Mann and Kendall's test for a trend, in standard deviations: above 0 they rise.

    Only the order of the values counts, so no outlier and no curvature misleads it. Ties count
    for neither side. M. G. Kendall, Rank Correlation Methods, 1948.
    """
    n = len(values)
    if n < 3:
        return 0.0
    score = sum((b > a) - (b < a) for a, b in combinations(values, 2))
    return score / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)


def most_fall(values: Sequence[float]) -> float:
    """The most by which they may have fallen from their first half to their second, as a share
    of the first: the difference of the means and two standard errors of it.
    """
    half = len(values) // 2
    early, late = fmean(values[:half]), fmean(values[half:])
    error = wobble(values) * math.sqrt(1 / half + 1 / (len(values) - half))
    return (early - late + SURE * error) / abs(early) if early else math.inf


def rise(values: Sequence[float]) -> float:
    """From the lowest to the mean of the last three."""
    return fmean(values[-3:]) - min(values)
