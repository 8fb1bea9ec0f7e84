"""Red flags at log points: what a look at the figures should make a person stop and think.

A flag is a function of what was seen. It answers with a Flag, with FINE where the figures say
clearly that there is nothing, and with None where they do not tell: a flag that is up stays up,
and unspoken, until FINE. A false alarm is worse than a late one, so each waits until chance is no
explanation. Those about what is learned are in `learning`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean, median
from typing import Literal, NamedTuple

from autotrain.run.cadence import Cadence
from autotrain.run.watching.history import KEPT, History
from autotrain.schema import CUDA_LIKE, Plan
from autotrain.starving import IDLE, enough_workers, taking_turns, worth_a_word
from autotrain.units import bytes_text


class Flag(NamedTuple):
    """What is wrong, with its figures, and what to do about it."""

    message: str
    advice: str


class Seen(NamedTuple):
    """All that a flag may look at. `better`: lower or higher, of the monitored figure."""

    past: History
    plan: Plan
    way: Cadence
    better: str = "lower"


FINE: Literal["fine"] = "fine"
Verdict = Flag | Literal["fine"] | None
Rule = Callable[[Seen], Verdict]

# So many log points in a row are no accident; times have more of those than figures.
ROW, TIMED_ROW = 3, 5
# What would not cost a minute of the time that is left is not worth a word.
STAKE_SECONDS = 60.0
# Predictions are good to a few percent; less than half of the budget endangers nobody.
ABOVE, MATTERS = 1.05, 0.5
# Before so many log points a run has no usual speed or norm of its own.
USUAL = 10
SLOW, AS_USUAL = 0.5, 0.75
# So much of the cores, taken by others, may be why.
TAKEN = 0.25
# The resolution of fp32 is 1.2e-7 of a weight.
EXPLODED, VANISHED = 100.0, 1e-7
# Cut to a tenth and less, nearly always: clip_norm, not the gradient, sets the length of a step.
# The other optimizers divide by the gradients' size: a constant factor changes nothing for them.
CLIPPED, OFTEN, CLIP_POINTS = 10.0, 0.95, 40
BY_SIZE = ("sgd",)
# A loss that fell to so much of its first value is learned: nothing is left that could vanish.
LEARNED = 0.01


def data_wait(seen: Seen) -> Verdict:
    """The device stands idle while samples are loaded."""
    recent = seen.past.waits[-TIMED_ROW:]
    if len(seen.past.waits) <= TIMED_ROW:  # the first has the workers' start in it
        return None
    share, most = min(recent), worth_a_word(seen.plan)
    if share <= most or share * _left(seen) < STAKE_SECONDS:
        return FINE if max(recent) <= most / 2 else None
    message = f"{percent(fmean(recent))} of the time goes by waiting for data"
    return Flag(message, _faster(seen.plan, share))


def _faster(plan: Plan, share: float) -> str:
    """So many workers bring as much as the device takes, where there is a core for each."""
    workers, wanted = plan.loader.workers, enough_workers(plan, share)
    if wanted is not None:
        return f"loader.workers = {wanted}; the plan has {workers}"
    if taking_turns(plan):
        return (
            "loading takes turns with the model on the same cores: decode or resize the samples "
            "once, beforehand; a plan refreshed with loader.workers=auto weighs a worker anew"
        )
    return (
        f"loader.workers is {workers}, and more would find no free core: "
        "decode or resize the samples once, beforehand"
    )


def memory(seen: Seen) -> Verdict:
    """More than the plan thought possible, and not far from its budget."""
    said, peak, budget = seen.plan.predicted, seen.past.peak_bytes, seen.plan.memory.budget_bytes
    on_gpu = seen.plan.device.kind in CUDA_LIKE
    high = (said.reserved_peak_bytes if on_gpu else said.device_peak_bytes).high
    if peak <= max(ABOVE * high, MATTERS * budget):
        return None
    message = (
        f"memory reached {bytes_text(peak)}, where the plan said {bytes_text(high)} at most, "
        f"of a budget of {bytes_text(budget)}"
    )
    advice = "where others need the memory: half of batch.micro_batch, batch.accum_steps x 2"
    return Flag(message, advice)


def throughput(seen: Seen) -> Verdict:
    """Half of the run's own median, and slower than it was at all but a twentieth of the points."""
    recent, before = seen.past.rates[-TIMED_ROW:], seen.past.rates[:-TIMED_ROW]
    if len(before) < USUAL:
        return None
    usual, slowest = median(before), sorted(before)[len(before) // 20]
    fastest = max(recent)
    lost = (1 - fastest / usual) * _left(seen)
    if fastest > SLOW * usual or fastest >= slowest or lost < STAKE_SECONDS:
        return FINE if min(recent) >= AS_USUAL * usual else None
    message = f"{fastest:.3g} samples a second, where {usual:.3g} were usual"
    return Flag(message + _why_slow(seen.past), "look for other programs, heat, or a slow disk")


def _why_slow(past: History) -> str:
    """What the sensors say about it."""
    found = []
    if past.slowed[-1]:
        found.append(f"the GPU is slowed down by {past.slowed[-1]}")
    if past.others is not None and past.others >= TAKEN:
        found.append(f"other programs take {percent(past.others)} of the cores")
    if past.waits[-1] > IDLE:
        found.append(f"{percent(past.waits[-1])} of it is waiting for data")
    return f": {', '.join(found)}" if found else ""


def heat(seen: Seen) -> Verdict:
    """The GPU protects itself. It may do so on and off: only a long calm is one."""
    past = seen.past
    if not any(past.slowed[-KEPT // 2 :]):
        return FINE
    if len(past.slowed) < ROW or not all(past.slowed[-ROW:]):
        return None
    at = "" if past.celsius is None else f" at {past.celsius:.0f} C"
    message = f"the GPU slows itself down{at}: {past.slowed[-1]}"
    return Flag(message, "better cooling, or a lower power limit")


def exploding(seen: Seen) -> Verdict:
    """Gradients a hundred times their usual size, and the loss none the better for it."""
    norms, before = seen.past.norms[-ROW:], seen.past.norms[:-ROW]
    if len(before) < USUAL:
        return None
    usual, losses = median(before), seen.past.losses
    better = fmean(losses[-ROW:]) < median(losses[:-ROW])
    if min(norms) < EXPLODED * usual or usual <= VANISHED or better:
        return FINE if max(norms) < EXPLODED / 10 * usual else None
    clip = seen.plan.optimizer.clip_norm
    advice = f"optimizer.clip_norm = {usual:.1g}" if clip is None else "a lower optimizer.lr"
    return Flag(f"the gradient norm is {min(norms):.3g}, where {usual:.3g} was usual", advice)


def vanishing(seen: Seen) -> Verdict:
    """Below the resolution of the weights, while there is something left to learn."""
    norms = seen.past.norms[-ROW:]
    if len(norms) < ROW or learned(seen.past):
        return None
    if max(norms) >= VANISHED:
        return FINE if min(norms) >= VANISHED else None
    message = f"the gradient norm is {max(norms):.3g}: nothing reaches the weights"
    return Flag(message, "look for a detached tensor, a dead activation, frozen parameters")


def clipped(seen: Seen) -> Verdict:
    """All steps are clip_norm x lr long, whatever the gradient says."""
    optimizer, recent = seen.plan.optimizer, seen.past.norms[-CLIP_POINTS:]
    clip = optimizer.clip_norm
    if clip is None or optimizer.name not in BY_SIZE or len(recent) < CLIP_POINTS:
        return None
    share = sum(norm > CLIPPED * clip for norm in recent) / len(recent)
    if share < OFTEN:
        return FINE if share < OFTEN / 2 else None
    usual = median(recent)
    message = f"gradients are clipped nearly always, from {usual:.3g} to {clip:g}"
    return Flag(message, f"optimizer.clip_norm = {usual:.1g} with a lower optimizer.lr")


AT_LOG_POINTS: Mapping[str, Rule] = {
    "data wait": data_wait,
    "memory": memory,
    "throughput": throughput,
    "heat": heat,
    "exploding": exploding,
    "vanishing": vanishing,
    "clipped": clipped,
}


def learned(past: History) -> bool:
    """Whether the training loss is next to nothing of what it was."""
    if not past.first or not past.losses:
        return False
    return abs(past.losses[-1]) <= LEARNED * abs(fmean(past.first[:ROW]))


def _left(seen: Seen) -> float:
    """Seconds that the steps to come will take at the pace of late."""
    past = seen.past
    return (seen.way.total_steps - past.steps[-1]) * median(past.seconds[-TIMED_ROW:])


def percent(share: float) -> str:
    """`0.342` -> `34 %`."""
    return f"{100 * share:.0f} %"
