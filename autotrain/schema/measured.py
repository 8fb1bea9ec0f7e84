"""What was measured of a model by training it for real: a range test, the noise of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from autotrain.schema.base import Dtype, OptimizerName, Positive, PositiveFloat, Record, Whole
from autotrain.schema.settings import MemoryFormat, ModelSection

Outcome = Literal["ok", "out_of_memory", "timed_out", "failed", "not_finite"]


class Sweep(NamedTuple):
    """One pass over rising learning rates, from a model of its own (`seed`).

    `losses[i]` is the loss a item of a batch just before the step at the i-th rate, `before[i]`
    that of the same batch under the weights that the sweep began with: the difference is what
    was learned, without what makes one batch harder than the next. It ends where it diverged.
    """

    seed: int
    losses: tuple[float, ...]
    before: tuple[float, ...]


class RangeTest(Record):
    """Optimizer steps at rates that rise by the same factor from step to step.

    A step took `samples` samples, in micro-batches of `micro_batch`. `seconds` is all that the
    child took.
    """

    outcome: Outcome
    message: str = ""
    hint: str = ""
    optimizer: OptimizerName
    dtype: Dtype
    micro_batch: Positive
    samples: Positive
    rates: tuple[PositiveFloat, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    seconds: float = 0.0


class Suggestion(NamedTuple):
    """The rate for steps of the size tested, and the lowest and highest that a sweep alone says.

    `edge`: the largest rate at which the loss still fell, `diverged` whether it rose beyond.
    `curve`: what was learned at each rate. `why_not`: why there is no suggestion, or "".
    """

    low: float
    rate: float
    high: float
    edge: float
    diverged: bool
    curve: tuple[float, ...]
    why_not: str = ""


class NoiseWindow(NamedTuple):
    """Some micro-batches' gradients at the same weights, `step` optimizer steps after the start.

    `square`: the squared norm of their mean. `spread`: the sum of squared distances from it,
    over one less than there are micro-batches.
    """

    step: int
    square: float
    spread: float


class NoiseTest(Record):
    """Gradients of `parts` micro-batches of `micro_batch` samples at once, out of `count`."""

    outcome: Outcome
    message: str = ""
    hint: str = ""
    micro_batch: Positive
    parts: Positive
    count: Positive
    mixes: bool = False
    windows: tuple[NoiseWindow, ...] = ()
    seconds: float = 0.0
    skipped: Whole = 0


class Variant(NamedTuple):
    """A way to run the same model. `threads` are the CPU's."""

    dtype: Dtype
    memory_format: MemoryFormat
    threads: int


class Raced(NamedTuple):
    """What a variant took: seconds of one micro-batch, and of one update of the weights."""

    variant: Variant
    micro_seconds: float
    update_seconds: float

    def step_seconds(self, accum_steps: int) -> float:
        """Of an optimizer step: its micro-batches and the update."""
        return accum_steps * self.micro_seconds + self.update_seconds


class Replay(NamedTuple):
    """A traced step's operators played again on this machine, and what tables had said of them.

    `seconds` of one micro-batch's forward and backward, the mean of a step's; `evaluate_seconds`
    of one without gradients. `priced` and `evaluate_priced`: the same, put together from operators
    that the machine had timed. `form` is how the model ran, `length` that of the longest sample.
    """

    micro_batch: int
    length: float
    dtype: Dtype
    form: ModelSection
    threads: int
    seconds: float
    evaluate_seconds: float
    priced: float
    evaluate_priced: float


class RacedCut(NamedTuple):
    """What a variant took for the samples of a race in micro-batches of that size: `seconds` of
    all of them.
    """

    variant: Variant
    micro_batch: Positive
    seconds: PositiveFloat


def leaders(
    runs: Sequence[Raced], accum_steps: int, margin: float, near: float
) -> tuple[Variant, ...]:
    """Who is worth trying in smaller parts too: the clear winner, and the fastest of each other
    memory format that took at most `near` times as long.
    """
    best = clear_winner(runs, accum_steps, margin)
    ends = near * best.step_seconds(accum_steps)
    fastest: dict[str, Raced] = {}
    for raced in sorted(runs, key=lambda r: r.step_seconds(accum_steps)):
        if raced.step_seconds(accum_steps) <= ends:
            fastest.setdefault(raced.variant.memory_format, raced)
    others = fastest.keys() - {best.variant.memory_format}
    return (best.variant, *(fastest[other].variant for other in sorted(others)))


def clear_winner(runs: Sequence[Raced], accum_steps: int, margin: float) -> Raced:
    """The fastest; of those that are slower by `margin` at most, the one most like the first.

    The first is the plain one.
    """
    best = min(raced.step_seconds(accum_steps) for raced in runs)
    near = [raced for raced in runs if (1 - margin) * raced.step_seconds(accum_steps) <= best]
    plain = runs[0].variant

    def apart(raced: Raced) -> int:
        return sum(own != usual for own, usual in zip(raced.variant, plain, strict=True))

    return min(near, key=lambda raced: (apart(raced), raced.step_seconds(accum_steps)))


class Race(Record):
    """Ways to run a model, in turns on the same batches of `micro_batch` samples.

    The first of `runs` is the plain one, which autotrain's rules would take unseen; each figure
    is the median of `rounds`. A variant that failed is not there. `cuts`: the winner again, and
    then the same samples in smaller micro-batches, by it and by the best of other formats.
    `entered` and `sizes`: all that were asked to run, and all smaller sizes. `tolls`: seconds in
    each micro-batch of those figures that were reckoned and not taken, by dtype.
    """

    outcome: Outcome
    message: str = ""
    hint: str = ""
    micro_batch: Positive
    accum_steps: Positive
    rounds: Whole = 0
    runs: tuple[Raced, ...] = ()
    cuts: tuple[RacedCut, ...] = ()
    entered: tuple[Variant, ...] = ()
    sizes: tuple[Positive, ...] = ()
    tolls: dict[Dtype, float] = {}
    seconds: float = 0.0
