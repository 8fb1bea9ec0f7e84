"""Samples that stay in a process's memory after they were read, by blocks or by the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotrain.schema import ModelProfile

if TYPE_CHECKING:
    from autotrain.plan.sizing import Sizing

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


def where(sizing: Sizing) -> str | None:
    """Where a run keeps samples, `ram` or `device`: as decided, or as given until then."""
    decided = sizing.ledger.values.get("loader", {})
    found: str | None = decided["keep"] if "keep" in decided else sizing.ledger.fixed("loader.keep")
    return found


def in_ram(sizing: Sizing, workers: int) -> int:
    """Of samples that stay as they were read; each of several workers keeps its own."""
    return sizing.sample_bytes() * max(workers, 1) if where(sizing) == "ram" else 0


def on_device(sizing: Sizing) -> int:
    """Of samples that stay on the device, which may be a CPU. What a rule keeps there is too
    little to be noticed; what a person or a recipe has kept is not.
    """
    on_cpu = sizing.device.kind == "cpu"
    if on_cpu and sizing.ledger.fixed("loader.keep") is None:
        return 0
    if where(sizing) == "device":
        return sizing.sample_bytes()
    return in_ram(sizing, sizing.time.workers() or sizing.given_workers()) if on_cpu else 0
