"""Samples that stay in a process's memory after they were read, by blocks or by the dataset."""

from __future__ import annotations

from autotrain.schema import ModelProfile

# What a dataset keeps counts up to this share of the free RAM: more may be bounded in its own way.
SHARE = 0.5


def cached_bytes(model: ModelProfile, workers: int) -> int:
    """Of those that the dataset keeps once all were read: each worker reads them all."""
    return model.cached_bytes * max(workers, 1)


def counted_bytes(model: ModelProfile, workers: int, free: int) -> int:
    """All that counts in a peak, of so many bytes of RAM that are free."""
    cached = cached_bytes(model, workers)
    by_blocks = min(model.kept_bytes * max(workers, 1), model.kept_most)
    return by_blocks + (cached if cached <= SHARE * free else 0)
