"""From tensors to a process on a CPU: what the system sees resident."""

from __future__ import annotations

from autotrain.plan.memory import Setup
from autotrain.schema import ModelProfile, Prediction
from autotrain.units import MIB

# A Python process that has imported torch, numpy and what a run needs, before its model.
# Measured: docs/measurements/2026-11-20-cpu.md.
BASE_BYTES = 675 * MIB
# RSS over the bytes of the tensors: oneDNN's scratch and what malloc keeps. Same measurements.
SLACK = 1.15
# A forked loader worker's own pages; a spawned one imports torch again.
FORK_WORKER_BYTES, SPAWN_WORKER_BYTES = 120 * MIB, 420 * MIB


def resident(
    _model: ModelProfile, _setup: Setup, tensors: Prediction, saved_bytes: int, worker_bytes: int
) -> Prediction:
    """The process's RSS and its loader workers'.

    A save may be the peak: `saved_bytes` of weights and states, and a copy of them.
    """
    own = BASE_BYTES + SLACK * max(tensors.expected, 2.0 * saved_bytes)
    return Prediction(low=0.8 * own, expected=own + worker_bytes, high=1.3 * own + worker_bytes)
