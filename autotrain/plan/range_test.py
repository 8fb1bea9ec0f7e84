"""What a range test says of the learning rate: arithmetic on its losses.

The curve is what was learned: the loss of a batch before each step less that of the same batch
under the first weights. It starts at 0 whatever the batch, falls while the rate is good, and
turns up where it is too large.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from autotrain.plan import learning
from autotrain.plan.ledger import Ledger
from autotrain.schema import Beside, RangeTest, Suggestion, Sweep

# Rates are 12 to a tenfold; from 1/10,000 to 1,000 times the rule's rate they are 85 steps.
PER_DECADE = 12
BELOW, ABOVE = 1e-4, 1e3
SWEEPS = 3
# The suggestion: this factor under the rate by which so much of all that is learned was learned.
FALLEN, UNDER = 0.8, 1.25
# Steps over which the curve is averaged, to each side, as the width of a bell.
WIDTH = 2.0
# A fall counts that is so many times its standard error. Three sweeps tell little of how far
# sweeps are apart, so that counts half.
ERRORS, OF_SWEEPS = 4.0, 0.5
# Of one sweep alone nobody knows how far the next would be off.
ALONE = 2.0
SOURCE = "a range test on this machine, after Smith 2017, arXiv:1506.01186"


class _Marks(NamedTuple):
    """Places on one curve: where most of the fall is behind, and where it is lowest."""

    fallen: float
    lowest: int


def suggest(test: RangeTest) -> Suggestion:
    """The rate that a range test suggests, or why it suggests none."""
    if not test.sweeps:
        return _none((), "nothing was measured")
    count = max(len(sweep.losses) for sweep in test.sweeps)
    raw = _learned(test.sweeps, count)
    each = [smoothed(values, WIDTH) for values in raw]
    curve = tuple(statistics.fmean(values) for values in zip(*each, strict=True))
    marks = _marks(curve, test.rates)
    # Whether it fell at all is asked of a wider mean, which scatters less.
    depth, error = _fall(raw, 2 * WIDTH)
    if count < PER_DECADE:
        return _none(curve, f"it diverged at {test.rates[count - 1]:.2g}, near the lowest tried")
    if depth <= ERRORS * error:
        return _none(curve, "the loss never fell beyond its noise")
    if marks.lowest >= len(test.rates) - 2:
        return _none(curve, f"the loss still fell at {test.rates[-1]:.2g}, the largest rate tried")
    rate = marks.fallen / UNDER
    # A sweep that never fell has no say in how far apart they are.
    own = [_marks(values, test.rates).fallen / UNDER for values in each if min(values) < 0]
    low, high = (rate / ALONE, rate * ALONE) if len(own) < 2 else (min(own), max(own))
    edge, rose = test.rates[marks.lowest], curve[-1] > curve[marks.lowest] + ERRORS * error
    return Suggestion(min(low, rate), rate, max(high, rate), edge, rose, curve)


def _none(curve: tuple[float, ...], why_not: str) -> Suggestion:
    return Suggestion(math.nan, math.nan, math.nan, math.nan, False, curve, why_not)


def _learned(sweeps: Sequence[Sweep], count: int) -> list[list[float]]:
    """What each sweep had learned before each step, no higher than it fell or scatters.

    So a loss that explodes cannot outweigh the rest; a sweep that has ended stays there.
    """
    learned = [[now - then for now, then in zip(s.losses, s.before, strict=False)] for s in sweeps]
    most = max((_reach(values) for values in learned if values), default=0.0)
    return [
        [min(value, most) for value in values] + [most] * (count - len(values))
        for values in learned
    ]


def _reach(learned: list[float]) -> float:
    """How deep a sweep falls, or five times what its last steps on the way there scatter.

    By the median, which a few steps that explode do not move.
    """
    deep = smoothed([min(value, 0.0) for value in learned], WIDTH)
    lowest = min(range(len(deep)), key=deep.__getitem__)
    last = slice(max(lowest - PER_DECADE, 0), lowest + 1)
    off = [abs(v - c) for v, c in zip(learned[last], deep[last], strict=True)]
    return max(-deep[lowest], 5 * 1.48 * statistics.median(off))


def smoothed(values: Sequence[float], width: float) -> list[float]:
    """A running mean under a bell of `width` steps; at the ends of what there is of it.

    The weights always add up to one, so that neither end is drawn towards zero, and it looks
    both ways, so that nothing is moved to higher rates.
    """
    reach = math.ceil(4 * width)
    bell = [math.exp(-0.5 * (step / width) ** 2) for step in range(reach + 1)]
    found = []
    for i in range(len(values)):
        near = range(max(i - reach, 0), min(i + reach + 1, len(values)))
        weights = [bell[abs(j - i)] for j in near]
        found.append(sum(w * values[j] for w, j in zip(weights, near, strict=True)) / sum(weights))
    return found


def _marks(curve: Sequence[float], rates: Sequence[float]) -> _Marks:
    """Where the curve is lowest, and the rate at which it first got to FALLEN of that."""
    lowest = min(range(len(curve)), key=curve.__getitem__)
    goal = FALLEN * curve[lowest]
    after = next((i for i in range(lowest + 1) if curve[i] <= goal), lowest)
    if after == 0 or curve[after] == curve[after - 1]:
        return _Marks(rates[after], lowest)
    share = (curve[after - 1] - goal) / (curve[after - 1] - curve[after])
    return _Marks(rates[after - 1] * (rates[after] / rates[after - 1]) ** share, lowest)


def _fall(raw: list[list[float]], width: float) -> tuple[float, float]:
    """How deep the mean curve falls, and the standard error of that.

    From what the steps around scatter about their own sweep's curve, or the sweeps about each
    other, whichever is more.
    """
    each = [smoothed(values, width) for values in raw]
    curve = [statistics.fmean(values) for values in zip(*each, strict=True)]
    lowest = min(range(len(curve)), key=curve.__getitem__)
    reach = math.ceil(3 * width)
    near = range(max(lowest - reach, 0), min(lowest + reach + 1, len(curve)))
    off = [values[i] - own[i] for values, own in zip(raw, each, strict=True) for i in near]
    steps = 2 * math.sqrt(math.pi) * width
    within = statistics.pstdev(off) / math.sqrt(len(raw) * steps)
    depths = [own[lowest] for own in each]
    across = statistics.stdev(depths) / math.sqrt(len(depths)) if len(depths) > 1 else 0.0
    return -curve[lowest], max(within, OF_SWEEPS * across)


def sweep_of(rule: float) -> tuple[float, float, int]:
    """The first rate of a sweep around the rule's, the factor to the next, and how many."""
    steps = round(PER_DECADE * math.log10(ABOVE / BELOW)) + 1
    return rule * BELOW, 10 ** (1 / PER_DECADE), steps


def cost_seconds(step: float, sweeps: int = SWEEPS) -> float:
    """What the sweeps take at most, from the seconds of a step.

    Each batch goes forward once more, to compare with, which is a third of a step.
    """
    return sweeps * sweep_of(1.0)[2] * step * 4 / 3


def parts_within(step: float, accum_steps: int, seconds: float) -> int:
    """Micro-batches of the `accum_steps` in a step with which one sweep takes no longer."""
    each = cost_seconds(step / accum_steps, sweeps=1)
    return max(min(math.floor(seconds / each), accum_steps), 1) if each else accum_steps


def settle(ledger: Ledger, test: RangeTest | None) -> None:
    """`optimizer.lr` as measured, in place of a rule's or a recipe's; the user's own stays.

    What was said before is shown beside it. Where the test suggests nothing, that is added.
    """
    if test is None or test.optimizer != ledger.value("optimizer.name"):
        return
    found, before = suggest(test), ledger.because["optimizer"]["lr"]
    if found.why_not:
        said = f"{before.formula}; a range test gave no suggestion: {found.why_not}"
        ledger.record("optimizer.lr", before.value, before.model_copy(update={"formula": said}))
        return
    ledger.drop("optimizer.lr")
    total: int = ledger.value("batch.global_batch")
    rate, told = for_batch(found, test, total)
    asked = Beside(
        name="without the range test",
        value=before.value,
        formula=before.formula,
        why_not="it was not measured on this model and data, and you asked for that",
    )
    ledger.settle(
        "optimizer.lr",
        rate,
        formula=told,
        source=SOURCE + (f"; {learning.LAW_SOURCES[_law(test)]}" if test.samples != total else ""),
        kind="measured",
        limited_by="batch.global_batch" if test.samples != total else "",
        would_change="--set optimizer.lr=..., another batch.global_batch",
        beside=() if ledger.by_user("optimizer.lr") else (asked,),
    )


def for_batch(found: Suggestion, test: RangeTest, total: int) -> tuple[float, str]:
    """The suggestion for steps of `total` samples, and how it came about."""
    spread = f"{found.low:.2g} to {found.high:.2g}"
    turn = "and rises beyond" if found.diverged else "and no longer beyond"
    told = (
        f"in {len(test.sweeps)} sweeps at {test.samples} samples a step the loss falls up to a "
        f"rate of {found.edge:.2g} {turn}; most of that is done by {UNDER * found.rate:.2g}, / "
        f"{UNDER} = {found.rate:.2g} (each sweep alone: {spread})"
    )
    if test.samples == total:
        return rounded(found.rate), told
    scaled = learning.scaled_rate(found.rate, test.optimizer, test.samples, total)
    rate = rounded(min(scaled, found.edge))
    told += f"; at {total} samples {scaled:.2g} ({_law(test)} scaling)"
    return rate, told + (f", held at {rate:.2g}" if scaled > found.edge else "")


def _law(test: RangeTest) -> learning.Law:
    return learning.law(test.optimizer)


def rounded(rate: float) -> float:
    """Two digits: more would be noise."""
    return float(f"{rate:.2g}")
