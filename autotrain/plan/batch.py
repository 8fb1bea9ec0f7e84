"""How a global batch is chosen and cut into micro-batches."""

from __future__ import annotations

import math
from typing import NamedTuple


class Cut(NamedTuple):
    """A global batch cut into micro-batches, and how many samples would have fitted."""

    micro: int
    accum: int
    fit: int


class Wanted(NamedTuple):
    """The global batch aimed at, each process's share of it, and what the rule would aim at.

    `most` at once, whatever fits: so that more memory never means fewer.
    """

    target: int
    share: int
    world: int
    rule: int
    most: int


def default_global_batch(samples: int) -> int:
    """The power of two nearest to the square root of the dataset, from 8 to 256, or all of it.

    Small sets need many noisy steps, large ones can use the parallelism; the critical batch
    grows with the task's size (McCandlish 2018, arXiv:1812.06162). A starting point that
    `batch.global_batch` overrides.
    """
    power = round(math.log2(max(samples, 1)) / 2)
    return int(min(max(2**power, 8), 256, max(samples, 1)))


def cut(share: int, fit: int) -> tuple[int, int]:
    """(micro_batch, accum_steps) whose product covers `share`, one process's samples a step.

    `fit`: the largest micro_batch that fits. The largest exact divisor is taken where it is
    at least half of what fits; else the fewest steps that cover the target, evenly filled.
    """
    fit = min(fit, share)
    divisor = exact_cut(share, fit)
    if 2 * divisor >= fit:
        return divisor, share // divisor
    steps = math.ceil(share / fit)
    return math.ceil(share / steps), steps


def filled(accum_steps: int, global_batch: int, samples: int) -> float:
    """Micro-batches of a step, as far as there are samples for them."""
    return accum_steps * min(samples / global_batch, 1.0)


def exact_cut(share: int, fit: int) -> int:
    """The largest divisor of `share` up to `fit`: a micro_batch that meets it exactly."""
    return next(size for size in range(min(fit, share), 0, -1) if share % size == 0)


def floor_accumulation_rule(target: int, micro_batch: int) -> int:
    """The image classifier origin's formula: target / largest physical batch, at least 1.

    Division that rounds down falls short of the target: 32 over 12 gives 2, a batch of 24.
    Shown beside ours by `explain`; never used.
    """
    return max(target // micro_batch, 1)
