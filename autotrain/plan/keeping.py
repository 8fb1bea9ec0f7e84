"""Samples that stay in a process's memory after they were read, by blocks or by the dataset."""

from __future__ import annotations

from autotrain.schema import ModelProfile

# What a dataset keeps counts up to this share of the budget. More may be bounded in its own way,
# and counts less, by so much of what is over: so more memory never leaves less for the rest.
SHARE, FADE = 0.5, 0.5


def cached_bytes(model: ModelProfile, workers: int) -> int:
    """Of those that the dataset keeps once all were read: each worker reads them all."""
    return model.cached_bytes * max(workers, 1)


def counted_bytes(model: ModelProfile, workers: int, budget: float) -> int:
    """All that counts in a peak, of a budget of so many bytes of RAM."""
    cached, most = cached_bytes(model, workers), SHARE * budget
    by_blocks = min(model.kept_bytes * max(workers, 1), model.kept_most)
    faded = most - FADE * (cached - most)
    return by_blocks + (cached if cached <= most else max(int(faded), 0))
