"""How many samples fit at once, and which of several batches takes most.

How a step's tensors lie in memory is played (plan/allocator.py, plan/heap.py), which takes longer
than all else in a plan. Where there is room for far more than that ever came to, it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from autotrain.plan import cuda, host, memory

if TYPE_CHECKING:
    from autotrain.plan.sizing import Sizing

# No one trains with more in one micro-batch; it bounds the search.
MOST_SAMPLES = 1 << 20


def largest(sizing: Sizing, accum_steps: int, length: float = 0.0, most: int = MOST_SAMPLES) -> int:
    """The largest micro_batch up to `most` whose high prediction is within the budget; or 0."""
    if most < MOST_SAMPLES and _roomy(sizing, sizing.setup(most, accum_steps, length)):
        return most
    return memory.largest_fit(
        lambda size: sizing.device_peak(sizing.setup(size, accum_steps, length)).high,
        _room(sizing),
        most,
    )


def worst(sizing: Sizing, setups: Iterable[memory.Setup]) -> memory.Setup:
    """That of these steps which takes most memory; by its tensors, where all fit easily."""
    known = list(setups)
    most = max(known, key=lambda each: sizing.tensors(each).high)
    if _roomy(sizing, most):
        return most
    return max(known, key=lambda each: sizing.device_peak(each).high)


def _roomy(sizing: Sizing, setup: memory.Setup) -> bool:
    """Whether the step fits however its tensors may lie; not asked where a trial measured it."""
    if sizing.model.trials:
        return False
    tensors = sizing.tensors(setup).high
    if sizing.device.kind != "cpu":
        takes = cuda.at_most(tensors) + cuda.context(sizing.device).high
    else:
        beside = sizing.beside_bytes(sizing.given_workers())
        takes = host.at_most(sizing.model, setup, tensors, sizing.saved_bytes(), beside)
    return takes <= _room(sizing)


def _room(sizing: Sizing) -> float:
    return sizing.budget() - sizing.kept_bytes()
