"""What autotrain's loop adds to a step, beside a loop that is written by hand: figures, a sentence.

Pure: both are run by `bench.looping`.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotrain.bench.spread import WITHIN, quantile, spread
from autotrain.schema import Number, Prediction, Record
from autotrain.units import seconds_text


class Added(Record):
    """Seconds of a step by both loops, and what ours adds: of rounds in which they took turns.

    `low` to `high`: between them lie nine of ten rounds' differences. Below 0: ours is the faster.
    `waits`: the share of our step that is spent waiting for data.
    """

    bare: Prediction
    ours: Prediction
    low: Number
    middle: Number
    high: Number
    waits: Number
    rounds: int

    @property
    def share(self) -> float:
        """Of a step by the bare loop."""
        return self.middle / self.bare.expected


def added(bare: Sequence[float], ours: Sequence[float], waits: Sequence[float]) -> Added:
    """Of seconds a step and shares of waiting, round by round."""
    each = sorted(b - a for a, b in zip(bare, ours, strict=True))
    outside = (1 - WITHIN) / 2
    first, second = spread([bare]), spread([ours])
    return Added(
        bare=Prediction.around(first.low, first.middle, first.high),
        ours=Prediction.around(second.low, second.middle, second.high),
        low=quantile(each, outside),
        middle=quantile(each, 0.5),
        high=quantile(each, 1 - outside),
        waits=quantile(sorted(waits), 0.5),
        rounds=len(each),
    )


def advice(found: Added) -> str:
    """One sentence."""
    step = seconds_text(found.bare.expected)
    between = f"({seconds_text(found.low)} to {seconds_text(found.high)})"
    if found.low <= 0 <= found.high:
        return (
            f"autotrain's loop costs nothing that shows: {seconds_text(found.middle)} {between} a "
            f"step of {step}, with logging, checkpoints and healing armed"
        )
    verb = "adds" if found.middle > 0 else "saves"
    return (
        f"autotrain's loop {verb} {seconds_text(abs(found.middle))} {between} to a step of {step}, "
        f"{abs(found.share):.1%} of it, with logging, checkpoints and healing armed"
    )
