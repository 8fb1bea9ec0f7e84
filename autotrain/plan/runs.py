"""What runs that ended here change: seconds of a step, of loading, of all that a run does beside.

Memory that a run measured goes the way of a trial's (`correction`). docs/staying-true.md has it
in words.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from autotrain.plan import compute, correction
from autotrain.plan.compute import LOOP_SECONDS
from autotrain.plan.correction import NEAR_SPREAD, TRIED_SPREAD, Pace
from autotrain.plan.memory import Setup
from autotrain.schema import Device, Prediction, Trial
from autotrain.units import seconds_text

# The last runs of a size speak for it, each as loud as the others: their median.
LAST = 3
# A run shorter than the loop's own overhead says that, not that the model takes no time.
LEAST_RATIO = 0.05


def pace(
    trials: Sequence[Trial],
    setup: Setup,
    micro: Callable[[Setup], float],
    update: float,
    making: float = 0.0,
) -> Pace:
    """How true seconds proved: in the last runs at the nearest size, or in a trial if nearer.

    `micro` predicts a micro-batch's seconds, `update` is what was predicted for the optimizer, and
    `making` for kernels of sizes that differ.
    """
    runs = [t for t in trials if t.of_run and t.step_seconds and t.micro_batches]
    tried = [t for t in trials if not t.of_run]
    if not runs:
        return correction.pace(tried, setup, micro, update, making)
    nearest = min(runs, key=lambda t: _apart(t, setup))
    timed = [t for t in tried if t.outcome == "ok" and t.micro_seconds and t.update_seconds]
    if any(_apart(t, setup) < _apart(nearest, setup) for t in timed):
        found = correction.pace(tried, setup, micro, update, making)
        return found._replace(**_beside(runs))
    same = [t for t in runs if t.micro_batch == nearest.micro_batch][-LAST:]
    ratios = [_ratio(run, setup, micro, update) for run in same]
    at_size = nearest.micro_batch == setup.micro_batch
    return Pace(
        micro=statistics.median(ratios),
        update=statistics.median(ratios),
        spread=TRIED_SPREAD if at_size else NEAR_SPREAD,
        said=_said(same, setup, micro, update),
        of_runs=True,
        **_beside(runs),
    )


def start_seconds(known: Pace, device: Device) -> Prediction:
    """What a run's first steps take over later ones."""
    seen = known.start_seconds
    return compute.interval(compute.START_SECONDS if seen is None else seen, device)


def _apart(trial: Trial, setup: Setup) -> float:
    return abs(math.log(trial.micro_batch / setup.micro_batch))


def _predicted(run: Trial, setup: Setup, micro: Callable[[Setup], float], update: float) -> float:
    """Seconds of a run's step as computed, its loop and its loading left out."""
    each = statistics.median(map(micro, correction.setups(run, setup)))
    return (run.micro_batches or 1.0) * each + update


def _ratio(run: Trial, setup: Setup, micro: Callable[[Setup], float], update: float) -> float:
    measured = (run.step_seconds or 0.0) - LOOP_SECONDS
    return max(measured / max(_predicted(run, setup, micro, update), 1e-9), LEAST_RATIO)


def _beside(runs: Sequence[Trial]) -> dict[str, Any]:
    """What does not depend on the size: the median over the last runs that know it."""
    names = ("sample_seconds", "evaluation_seconds", "save_seconds", "start_seconds")
    found: dict[str, Any] = {}
    for name in names:
        known = [getattr(run, name) for run in runs if getattr(run, name) is not None]
        found[name] = statistics.median(known[-LAST:]) if known else None
    return found


def _said(
    same: Sequence[Trial], setup: Setup, micro: Callable[[Setup], float], update: float
) -> str:
    """`predicted 12.1 ms, the last 3 runs at micro_batch 8 took 13.0 ms`."""
    took = statistics.median(run.step_seconds or 0.0 for run in same)
    said = _predicted(same[-1], setup, micro, update) + LOOP_SECONDS
    which = "the last run" if len(same) == 1 else f"the last {len(same)} runs"
    return (
        f"computed {seconds_text(said)} without loading, {which} here at micro_batch "
        f"{same[-1].micro_batch} took {seconds_text(took)}"
    )
