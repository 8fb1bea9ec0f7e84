"""How a run's monitored figure came to where it ended: when the most of its gain was made."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from autotrain.report.progress import monitored
from autotrain.report.result import RunResult

LEAST = 4  # evaluations, below which nothing is said
MOST_OF_IT = 0.9
# In standard deviations of the figure's own scatter, what the mean of three neighbours must be
# better than the first to count as a gain (chance alone: 1 of 100 runs of 6 evaluations, 1 of
# 500 of 24).
LEARNED = 5.0
# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL = 1.4826


@dataclass(frozen=True, slots=True)
class Convergence:
    """The way of the monitored figure over the evaluations.

    `gained`: from the first to the best, in its own unit. `half_epoch`, `most_epoch`: when half,
    and nine tenths, of that was first reached. What is to be made of it says the diagnosis.
    """

    gained: float
    half_epoch: int
    most_epoch: int

    @property
    def text(self) -> str:
        """In a line."""
        return f"half of the gain by epoch {self.half_epoch}, 90 % by epoch {self.most_epoch}"


def convergence(result: RunResult) -> Convergence | None:
    """None where nothing was gained by more than chance, or too few evaluations can tell."""
    if result.started is None:
        return None
    monitor, sign = result.started.monitor, 1 if result.started.better == "lower" else -1
    rows = [(e.step, sign * monitored(e, monitor)) for e in result.evaluations]
    rows = [row for row in rows if math.isfinite(row[1])]
    if len(rows) < LEAST:
        return None
    values = [value for _, value in rows]
    gained = values[0] - min(values)
    level = min(statistics.fmean(values[at : at + 3]) for at in range(1, len(values) - 2))
    if values[0] - level <= LEARNED * _scatter(values):
        return None
    return Convergence(
        gained=gained,
        half_epoch=_epoch(result, rows, values[0] - gained / 2),
        most_epoch=_epoch(result, rows, values[0] - MOST_OF_IT * gained),
    )


def _scatter(values: Sequence[float]) -> float:
    """Standard deviation of one evaluation without the trend: by how neighbours differ, or how
    these differences do, whichever says more; of few figures either may say too little."""
    steps = [b - a for a, b in pairwise(values)]
    middle = statistics.median(steps)
    first = statistics.median(abs(step - middle) for step in steps) / math.sqrt(2)
    # The second difference of independent values has six times their variance.
    second = statistics.median(abs(b - a) for a, b in pairwise(steps)) / math.sqrt(6)
    return NORMAL * max(first, second)


def _epoch(result: RunResult, rows: Sequence[tuple[int, float]], aim: float) -> int:
    """The epoch of the first evaluation that is as good as `aim`."""
    return result.epoch(next(step for step, value in rows if value <= aim))
