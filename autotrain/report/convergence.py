"""How a run's monitored figure came to where it ended, and whether more epochs would help."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from autotrain.report.progress import monitored
from autotrain.report.result import RunResult
from autotrain.report.text import percent

Verdict = Literal["converged", "still improving", "past its best", "learned nothing"]
LEAST = 4  # evaluations, below which nothing is said
MOST_OF_IT = 0.9
# Of all that was gained: what the last quarter must bring to count as going on.
GOING_ON = 0.03
# In standard deviations of the figure's own scatter: what a difference must exceed to be one, and
# the mean of three neighbours to be better than the first (missed by scatter alone in 1 of 100
# runs of 6 evaluations, in 1 of 500 of 24).
SURE, LEARNED = 2.0, 5.0
# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL = 1.4826


@dataclass(frozen=True, slots=True)
class Convergence:
    """The way of the monitored figure over the evaluations.

    `gained`: from the first to the best, in its own unit, 0 at least. `half_epoch`, `most_epoch`:
    when half, and nine tenths, of that was reached for good or not. `late_share`: what the last
    quarter of the evaluations brought of it. `scatter`: of one evaluation to the next, without
    the trend. `lost`: from the best to the mean of the last quarter, as a share of what was gained.
    """

    verdict: Verdict
    gained: float
    half_epoch: int
    most_epoch: int
    late_share: float
    scatter: float
    lost: float

    @property
    def text(self) -> str:
        """In a line."""
        if self.verdict == "learned nothing":
            return "learned nothing: no evaluation was better than the first by more than chance"
        way = f"half of the gain by epoch {self.half_epoch}, 90 % by epoch {self.most_epoch}"
        if self.verdict == "past its best":
            return f"{way}; past its best: {percent(self.lost)} of the gain was lost again"
        advice = ": more epochs would help" if self.verdict == "still improving" else ""
        late = f"the last quarter brought {percent(self.late_share)}"
        return f"{way}; {late}: {self.verdict}{advice}"


def convergence(result: RunResult) -> Convergence | None:
    """None where too few evaluations were made, or a figure was not finite at the start."""
    if result.started is None:
        return None
    monitor, sign = result.started.monitor, 1 if result.started.better == "lower" else -1
    rows = [(e.step, sign * monitored(e, monitor)) for e in result.evaluations]
    rows = [row for row in rows if math.isfinite(row[1])]
    if len(rows) < LEAST:
        return None
    values = [value for _, value in rows]
    best, scatter = min(values), _scatter(values)
    gained = values[0] - best
    level = min(statistics.fmean(values[at : at + 3]) for at in range(1, len(values) - 2))
    if values[0] - level <= LEARNED * scatter:
        return Convergence("learned nothing", max(gained, 0.0), 0, 0, 0.0, scatter, 0.0)
    quarter = max(len(values) // 4, 1)
    late = (min(values[:-quarter]) - best) / gained
    rest = statistics.fmean(values[-quarter:]) - best
    return Convergence(
        verdict=_verdict(late, rest, gained, scatter, values, quarter),
        gained=gained,
        half_epoch=_epoch(result, rows, values[0] - gained / 2),
        most_epoch=_epoch(result, rows, values[0] - MOST_OF_IT * gained),
        late_share=max(late, 0.0),
        scatter=scatter,
        lost=rest / gained,
    )


def _verdict(
    late: float, rest: float, gained: float, scatter: float, values: Sequence[float], quarter: int
) -> Verdict:
    """Past its best: the whole last quarter lies above the best by more than scatter explains."""
    away = min(values[-quarter:]) - min(values)
    if quarter > 1 and away > SURE * scatter and rest > 0.1 * gained:
        return "past its best"
    return "still improving" if late > max(GOING_ON, scatter / gained) else "converged"


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
