"""How often to log, evaluate and save, and how much to keep."""

from __future__ import annotations

import math

from autotrain.schema import Prediction
from autotrain.units import GIB


def epochs_fifth_rule(epochs: int) -> int:
    """Save every epochs / 5 epochs, at least 1: the speech autoencoder origin's rule."""
    return max(epochs // 5, 1)


def checkpoint_steps(step_seconds: float, most_seconds_at_stake: float) -> int:
    """Steps between saves so that no more than that much work is at stake."""
    return max(int(most_seconds_at_stake / step_seconds), 1)


def checkpoint_interval(tensors: int) -> Prediction:
    """Bytes of one checkpoint: its tensors' (weights, buffers, optimizer), and a little JSON."""
    return Prediction(low=tensors, expected=tensors + 48_000, high=1.02 * tensors + 400_000)


KEEP = 3
# Where the disk's speed is not known, and what fsync, hashing and renaming take besides.
WRITE_BANDWIDTH, SAVE_SECONDS = 200e6, 10e-3


def save_seconds(checkpoint_bytes: float, write_bandwidth: float | None) -> float:
    """Writing one checkpoint, through its fsync."""
    return checkpoint_bytes / (write_bandwidth or WRITE_BANDWIDTH) + SAVE_SECONDS


def occasions(
    epochs: int, steps_per_epoch: int, every_epochs: int | None, every_steps: int | None
) -> int:
    """How often something is due in a run: by epochs, by steps, and after the last step."""
    total = epochs * steps_per_epoch
    paces = [every_steps or 0, (every_epochs or 0) * steps_per_epoch]
    paces = [pace for pace in paces if pace]
    due = sum(total // pace for pace in paces)
    if len(paces) == 2:
        due -= total // math.lcm(*paces)
    return due + (not any(total % pace == 0 for pace in paces))


def keep(checkpoint_bytes: float, free_bytes: float, wanted: int = KEEP) -> int:
    """Checkpoints to keep: `wanted`, fewer where the disk is small, at least 1.

    A save needs room for one more than are kept, `best` may be a further one, and 1 GiB is
    left to the rest of the machine.
    """
    room = (free_bytes - GIB) / max(checkpoint_bytes, 1)
    return min(max(math.floor(room) - 2, 1), wanted)


def disk_bytes(checkpoint_bytes: float, keep_count: int) -> float:
    """The most a run's checkpoints take: those kept, the best, and one being written."""
    return checkpoint_bytes * (keep_count + 2)


def log_every(step_seconds: float, total_steps: int) -> int:
    """Steps between log points: about one a second, at least 50 in a run, at most 100 steps."""
    by_time = round(1.0 / max(step_seconds, 1e-6))
    return min(max(by_time, 1), max(total_steps // 50, 1), 100)
