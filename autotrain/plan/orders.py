"""In which order samples of many lengths come where all micro-batches have one size.

Each micro-batch is as long as its longest sample, to which the others are padded.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from itertools import accumulate, pairwise

from autotrain.plan.lengths import Piece
from autotrain.schema import LengthProfile

# Parts of equal chance that draws in random order are seen in.
QUARTERS = 4
# In training a run sorts samples by length, so many steps' at a time; and the parts that these are
# seen in here.
POOL_STEPS, PARTS = 50, 16


def trained(
    known: LengthProfile | None, count: int, micro_batch: int, global_batch: int
) -> tuple[Piece, ...]:
    """Micro-batches of an epoch of `count` samples; all as long as the longest of all, where
    nothing is known of lengths."""
    if known is None:
        return (Piece(1, micro_batch, 0.0),)
    return sorted_pieces(known, micro_batch, min(count, POOL_STEPS * global_batch))


def evaluated(
    known: LengthProfile | None, count: int, micro_batch: int, *, in_order: bool
) -> tuple[Piece, ...]:
    """Micro-batches of an evaluation of `count` samples, as long as those for training: in order of
    length, or as they lie."""
    if known is None:
        return (Piece(1, micro_batch, 0.0),)
    if in_order:
        return sorted_pieces(known, micro_batch, count)
    return tuple(Piece(1, micro_batch, length) for length in usual_longest(known, micro_batch))


def padding(known: LengthProfile, count: int, micro_batch: int, global_batch: int) -> float:
    """The share of padding in what is computed in training."""
    longest = mean_length(trained(known, count, micro_batch, global_batch))
    return max(1.0 - math.fsum(known.points) / len(known.points) / longest, 0.0)


def mean_length(made: tuple[Piece, ...]) -> float:
    """Of all these micro-batches."""
    total = math.fsum(piece.batches * piece.length for piece in made)
    return total / sum(piece.batches for piece in made)


@functools.lru_cache(maxsize=64)
def usual_longest(lengths: LengthProfile, drawn: int) -> tuple[float, ...]:
    """The longest of `drawn` samples: mean lengths of the shortest quarter of such draws, the next,
    and so on. Several, as what grows faster than lengths do is not at its mean at the mean length.
    """
    points = lengths.points
    sums, before = [0.0] * QUARTERS, 0.0
    for rank, point in enumerate(points, start=1):
        chance = (rank / len(points)) ** drawn
        for place in range(int(before * QUARTERS), QUARTERS):
            low, high = max(before, place / QUARTERS), min(chance, (place + 1) / QUARTERS)
            if high <= low:
                break
            sums[place] += (high - low) * point
        before = chance
    return tuple(QUARTERS * found for found in sums)


@functools.lru_cache(maxsize=64)
def sorted_pieces(lengths: LengthProfile, micro_batch: int, pool: int) -> tuple[Piece, ...]:
    """Micro-batches where `pool` samples come in order of length: PARTS parts of them at most, the
    shortest first, each as long as its micro-batches' longest samples are on average.

    All parts hold as much: what grows faster than lengths do is off at a mean length, by more
    where long samples share a part.
    """
    points, groups = lengths.points, max(math.ceil(pool / micro_batch), 1)
    if groups > PARTS**2:  # hardly longer than what comes with it
        ends = list(points)
    else:
        ranks = (math.ceil(len(points) * (group + 1) / groups) for group in range(groups))
        ends = [points[rank - 1] for rank in ranks]
    up_to = list(accumulate(ends, initial=0.0))
    shares = [(a + b) / 2 / max(up_to[-1], 1e-300) for a, b in pairwise(up_to)]
    where = [bisect_left(shares, part / PARTS) for part in range(PARTS)]
    parts = [ends[a:b] for a, b in pairwise([*where, len(ends)]) if b > a]
    return tuple(Piece(len(part), micro_batch, math.fsum(part) / len(part)) for part in parts)
