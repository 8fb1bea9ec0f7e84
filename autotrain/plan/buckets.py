"""Samples of like length share a micro-batch, and each bucket of lengths has a size of its own.

Memory is decided by the longest sample of a micro-batch: many short ones take what a few long
ones do. A step then collects micro-batches up to a target of items, the sum of lengths.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from autotrain.errors import UsageError
from autotrain.plan import fitting
from autotrain.plan.fitting import MOST_SAMPLES
from autotrain.plan.ledger import Ledger
from autotrain.plan.lengths import edges, share_below, traced_lengths
from autotrain.plan.sizing import Sizing
from autotrain.schema import BatchSection, Bucket, LengthProfile, ModelProfile
from autotrain.units import bytes_text

MICRO, ACCUM, BUCKETS, ITEMS = (
    f"batch.{name}" for name in ("micro_batch", "accum_steps", "buckets", "target_items")
)

# At most so many, and fewer where rounding lengths up to the end of their bucket adds under a
# tenth, or where tracing each of them twice would take longer than that.
MOST, LEAST, WASTE, TRACING_SECONDS = 6, 3, 0.1, 4.0
# A trace takes its time by operators, and for a CPU by those that it runs to see what they use
# inside; by its own limit that is no more than so many FLOPs.
OP_SECONDS, FLOP_SECONDS, MOST_FLOPS = 1e-4, 1e-10, 24e9
# Micro-batches that a bucket is to fill in an epoch: of fewer, sorting would make the same samples
# meet every time. It takes fewer at once for that; where it would be no more than the next longer
# one takes, it does with FEW, or joins that. And the steps that an epoch must have, for the same
# reason.
FULL, FEW, LEAST_STEPS = 4, 2, 10


class Choice(NamedTuple):
    """The buckets; or none, and why."""

    parts: tuple[Bucket, ...]
    why: str
    fit: int = 0
    short: bool = False  # memory allows less at some length than a step could take
    most: int = MOST_SAMPLES  # at once where there are none: no more than of the longest otherwise


def lengths_to_trace(ledger: Ledger, model: ModelProfile, *, on_cpu: bool) -> tuple[float, ...]:
    """Lengths below the longest that a plan with buckets needs traces of. `model` has some."""
    lengths, given = model.lengths, ledger.fixed(BUCKETS)
    if lengths is None or _why_not(ledger, model):
        return ()
    if given is not None:
        return tuple(end for end, _ in given if end < lengths.maximum)
    work = max(trace.matmul_flops + trace.convolution_flops for trace in model.traces)
    seconds = OP_SECONDS * max(trace.ops for trace in model.traces)
    if on_cpu or model.traced == "concrete":
        seconds += FLOP_SECONDS * min(2 * work, MOST_FLOPS)
    most = min(max(int(TRACING_SECONDS / (2 * seconds)), LEAST), MOST)
    return edges(lengths, most, WASTE)[:-1]


def to_check(cut: BatchSection, model: ModelProfile) -> tuple[tuple[int, float], ...]:
    """(micro_batch, length) of every batch that the plan makes; length 0: the longest."""
    lengths = model.lengths
    if cut.buckets is None or lengths is None or model.mixes:
        return ((cut.micro_batch, 0.0),)
    return tuple((micro, end if end < lengths.maximum else 0.0) for end, micro in cut.buckets)


def choose(ledger: Ledger, sizing: Sizing, share: int) -> Choice:
    """The largest micro_batch that fits at each length, and no more than a step needs.

    `share`: samples that one process takes in a step. Whether lengths have sizes of their own
    does not depend on memory: with less of it, as many of every length are no more at once than
    the longest would be with more.
    """
    lengths = sizing.model.lengths
    why = _why_not(ledger, sizing.model)
    if why or lengths is None:
        return Choice((), why)
    given = ledger.fixed(BUCKETS)
    if given is not None:
        return Choice(tuple(given), "", fitting.largest(sizing, 2))
    if sizing.train_count < LEAST_STEPS * share:
        few = f"{sizing.train_count} samples are too few: {share} a step, under {LEAST_STEPS} steps"
        return Choice((), f"{few} an epoch")
    ends = traced_lengths(sizing.model, ledger.value("precision.dtype"))
    if len(ends) < 2:
        ratio = lengths.maximum / lengths.mean
        return Choice((), f"the longest sample is {ratio:.3g} x the mean: one size does for all")
    needed = _needed(sizing, lengths, ends, share * lengths.mean)
    if len(_merged(lengths, needed, sizing.train_count)) < 2:
        return Choice((), "every length takes as many samples at once, or too few have that length")
    parts = _fitting(sizing, needed)
    if not parts:
        why = "with the gradients held while accumulating not one sample would fit"
        return Choice((), why, most=needed[-1][1])
    kept = _merged(lengths, parts, sizing.train_count)
    if len(kept) < 2:
        why = f"memory has room for {parts[-1][1]} at once of every length"
        return Choice((), why, most=parts[-1][1])
    return Choice(kept, "", fitting.largest(sizing, 2), short=parts != needed)


def samples_wanted(ledger: Ledger, sizing: Sizing) -> int | None:
    """The global batch that the target of items given comes to; None: none is, or none counts.

    Raises UsageError where the user says one thing in two ways.
    """
    lengths, items, given = sizing.model.lengths, ledger.fixed(ITEMS), ledger.fixed(BUCKETS)
    if given is not None and ledger.by_user(BUCKETS) and (lengths is None or sizing.model.mixes):
        raise UsageError(
            f"{BUCKETS}: {_why_not(ledger, sizing.model)}", hint="leave it out, or give lengths"
        )
    if given is not None and any(a[0] >= b[0] for a, b in pairwise(given)):
        raise UsageError(
            f"{BUCKETS}: {[end for end, _ in given]} do not rise",
            hint="pairs of a length and how many samples up to it, [[400, 16], [1600, 4]]",
        )
    if given is not None and ledger.by_user(MICRO) and ledger.fixed(MICRO) != given[-1][1]:
        raise UsageError(
            f"{MICRO} {ledger.fixed(MICRO)}, {BUCKETS} with {given[-1][1]} of the longest: two "
            "ways to set the same",
            hint="set one",
        )
    if lengths is None or items is None or sizing.model.mixes:
        return None
    return max(round(float(items) / lengths.mean), 1)


def _why_not(ledger: Ledger, model: ModelProfile) -> str:
    if model.lengths is None:
        return "the task does not say how long its samples are (Task.length)"
    if model.mixes:
        return "the loss ties samples together, so they are not sorted by length"
    if ledger.by_user(BUCKETS):
        return "" if ledger.fixed(BUCKETS) else "turned off"
    for key in (MICRO, ACCUM):
        if ledger.fixed(key) is not None:
            return f"{key} is given, and holds at every length"
    return ""


def _needed(
    sizing: Sizing, lengths: LengthProfile, ends: tuple[float, ...], items: float
) -> tuple[Bucket, ...]:
    """Samples of each bucket that hold what a step takes in all; of longer ones never more."""
    parts, most = list[Bucket](), sizing.train_count
    for start, end in pairwise((-1.0, *ends)):
        mean = share_below(lengths, start, end)[1]
        most = min(most, max(int(items / mean), 1) if mean else int(items) + 1)
        parts.append((end, most))
    return tuple(parts)


def _fitting(sizing: Sizing, needed: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    """As many of these as fit, of longer ones never more; none where not even one does."""
    parts, most = list[Bucket](), MOST_SAMPLES
    for end, micro in needed:
        most = fitting.largest(sizing, 2, end, min(micro, most))
        if most == 0:
            return ()
        parts.append((end, most))
    return tuple(parts)


def _merged(lengths: LengthProfile, parts: tuple[Bucket, ...], count: int) -> tuple[Bucket, ...]:
    """No more at once than fills enough micro-batches; without those that are no gain then.

    That is, which take no more at once than the next longer. The longest stays as it is.
    """
    kept: list[Bucket] = []
    for place, (end, micro) in enumerate(parts[:-1]):
        held = share_below(lengths, kept[-1][0] if kept else -1.0, end)[0] * count
        longer = parts[place + 1][1]
        filled = max(int(held / FULL), min(int(held / FEW), longer + 1))
        most = min([micro, filled, *(size - 1 for _, size in kept)])
        if most > longer:
            kept.append((end, most))
    return (*kept, parts[-1])


def settle(ledger: Ledger, sizing: Sizing, choice: Choice, total: int) -> None:
    """Record the buckets and the target of items, or why there are none."""
    lengths = sizing.model.lengths
    rule = "autotrain's rule, after lhotse's buckets by duration; each one's batch is traced"
    on = bool(choice.parts) and lengths is not None
    items = float(f"{total * lengths.mean:.6g}") if on and lengths else None
    if not on:
        ledger.drop(BUCKETS)
        ledger.drop(ITEMS)
    ledger.settle(
        BUCKETS,
        choice.parts or None,
        formula=_shown(sizing, choice.parts) if on else choice.why,
        source=rule if on else "autotrain's rule",
        limited_by=("memory.budget_bytes" if choice.short else "batch.global_batch") if on else "",
        would_change=f"--set {BUCKETS}=off, or --set {MICRO}=... for every length",
    )
    ledger.settle(
        ITEMS,
        items,
        formula=f"{total} samples (batch.global_batch) x a mean length of {lengths.mean:.4g}: a "
        "step collects micro-batches up to it, however long their samples are"
        if on and lengths
        else f"steps are counted in samples: {choice.why}",
        source="autotrain's rule",
        limited_by="batch.global_batch" if on else "",
    )


def _shown(sizing: Sizing, parts: tuple[Bucket, ...]) -> str:
    said = ", ".join(f"{micro} up to {end:.4g}" for end, micro in parts)
    worst = fitting.worst(sizing, [sizing.setup(micro, 2, end) for end, micro in parts])
    high = sizing.device_peak(worst).high
    budget = sizing.budget()
    return (
        f"samples at once by length: {said}; no more than fit, than a step needs, and than fills "
        f"{FULL} micro-batches an epoch ({FEW} where that would save nothing); the largest "
        f"possible batch takes up to {bytes_text(high)} of the budget of {bytes_text(budget)}"
    )
