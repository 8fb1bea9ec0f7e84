"""What rounds of the same steps took: the middle, and how far another measurement may lie from it.

Rounds of one process scatter less than processes do: where memory lies, and what the machine does
beside, stays for a while. So rounds are spread over several processes, one after another, and how
these differ says how far as many others may lie off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median, stdev
from typing import NamedTuple

# The share of the rounds that lies within, and what is to each side at least: of the same code two
# processes differ by about that much on a quiet machine.
WITHIN, LEAST = 0.9, 0.03
# Student's t for 95 %, by how many processes there are beside the first; more count as these.
_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
# The middle is known when 95 % of its doubt is within this share of it, and rounds are not few.
KNOWN, FEW = 0.02, 6


class Spread(NamedTuple):
    """Of `rounds` in `processes`: their median, and where another one's is expected to lie."""

    low: float
    middle: float
    high: float
    rounds: int
    processes: int

    def agrees(self, other: Spread) -> bool:
        """Whether each of the two middles lies within the other one's spread."""
        return self.low <= other.middle <= self.high and other.low <= self.middle <= other.high

    def beside(self, others: float | None) -> Spread:
        """The same where other programs took that share of the cores, and another call may find
        none of them, or twice as many.

        Of w of our own work and o of others', others = o / (w + o): alone the same takes
        1 - others times as long, beside twice as many (w + 2 o) / (w + o) = 1 + others times.
        """
        if others is None:
            return self
        low, high = self.middle * (1 - others), self.middle * (1 + others)
        return self._replace(low=min(self.low, low), high=max(self.high, high))

    def of(self, value: float) -> tuple[float, float, float]:
        """The same spread around another middle."""
        return value * self.low / self.middle, value, value * self.high / self.middle


def spread(processes: Sequence[Sequence[float]]) -> Spread:
    """Of what each round took, in each process: the median of all rounds.

    From `low` to `high` lie nine of ten rounds, the median of each process, 95 times in 100 the
    middle of as many other processes, and LEAST to each side.
    """
    heard = [rounds for rounds in processes if rounds]
    every = sorted(taken for rounds in heard for taken in rounds)
    middle, own = median(every), [median(rounds) for rounds in heard]
    outside, apart = (1 - WITHIN) / 2, _apart(own)
    return Spread(
        low=min(quantile(every, outside), *own, middle * (1 - LEAST), middle / apart),
        middle=middle,
        high=max(quantile(every, 1 - outside), *own, middle * (1 + LEAST), middle * apart),
        rounds=len(every),
        processes=len(heard),
    )


def _apart(own: Sequence[float]) -> float:
    """By what factor the middle of as many other processes may lie off: 95 % of a t-distribution.

    Of logarithms, as a machine that is disturbed is slower by factors. 1 where one process says
    nothing about others.
    """
    if len(own) < 2:
        return 1.0
    scatter = stdev(map(math.log, own))
    return math.exp(_T[min(len(own) - 1, 4)] * scatter * math.sqrt(2 / len(own)))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Along straight lines between the ordered values."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def known(rounds: Sequence[float]) -> bool:
    """Whether more of these would hardly move the median: its 95 % interval, by ranks."""
    if len(rounds) < FEW:
        return False
    ordered, half = sorted(rounds), 0.98 * math.sqrt(len(rounds))
    low = ordered[max(math.floor(len(rounds) / 2 - half), 0)]
    high = ordered[min(math.ceil(len(rounds) / 2 + half), len(rounds) - 1)]
    return high - low <= 2 * KNOWN * median(ordered)
