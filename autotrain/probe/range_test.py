"""The child process of a range test: real optimizer steps at learning rates that rise.

`commands.measuring` has it started as `python -m autotrain.probe.range_test`: a RangeRequest on
stdin, a RangeTest on stdout. The models trained are its own and are thrown away.

Each sweep first asks what the loss of its batches is before any step, so that later it can tell
what was learned from what makes one batch harder than the next.
"""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import torch

from autotrain import optimizer as optimizers
from autotrain.device import device_of, settings
from autotrain.probe.child import Request
from autotrain.probe.draws import Draws
from autotrain.probe.steps import NotFiniteError, Stepper, seed
from autotrain.probe.trial import fault, serve
from autotrain.schema import RangeTest, Record, Sweep
from autotrain.task import Task, load_task

# A sweep has diverged when the loss was for three steps this many times further above where it
# began than it ever fell below it, or than batches differ.
FAR, AT_ONCE = 10.0, 3
# The range moves by this factor where it turns out to lie too high or too low, at most so often.
SHIFT, SHIFTS = 1e4, 2
# Losses are averaged over so many steps where a rough look at the curve is enough.
ROUGH = 5


class RangeRequest(Record):
    """`sweeps` sweeps of at most `steps` optimizer steps of `parts` micro-batches each.

    The first step's rate is `first`, each next one `factor` times the last. No sweep is begun
    that would end after `seconds`, the first excepted.
    """

    take: Request
    first: float
    factor: float
    steps: int
    sweeps: int
    parts: int
    seconds: float


class _Range(NamedTuple):
    """The rates of a sweep's steps."""

    first: float
    factor: float
    steps: int

    def rates(self) -> list[float]:
        return [self.first * self.factor**i for i in range(self.steps)]


def measured(request: RangeRequest) -> RangeTest:
    """The range test, whatever comes of it."""
    plan, path = request.take.plan, Path(request.take.task_file)
    begun = monotonic()
    about = {
        "optimizer": plan.optimizer.name,
        "dtype": plan.precision.dtype,
        "micro_batch": plan.batch.micro_batch,
        "samples": plan.batch.micro_batch * request.parts,
    }
    doing = [""]
    try:
        task = load_task(path, request.take.data, plan.task.options)
        with settings(plan):
            rates, sweeps = _sweeps(request, task, doing)
        found = {"outcome": "ok", "rates": tuple(rates), "sweeps": sweeps}
    except Exception as error:
        found = fault(path, error, doing[0])
    return RangeTest.model_validate({**about, **found, "seconds": monotonic() - begun})


def _sweeps(
    request: RangeRequest, task: Task, doing: list[str]
) -> tuple[list[float], tuple[Sweep, ...]]:
    """The rates, and as many sweeps over them as there is time for."""
    begun, lowered, raised = monotonic(), 0, 0
    where = _Range(request.first, request.factor, request.steps)
    done: list[Sweep] = []
    while len(done) < request.sweeps:
        if done and (monotonic() - begun) * (len(done) + 1) / len(done) > request.seconds:
            break
        sweep = _sweep(request, task, where, len(done), doing)
        if not done and _too_high(sweep, where) and not raised and lowered < SHIFTS:
            where, lowered = where._replace(first=where.first / SHIFT), lowered + 1
        elif not done and _too_low(sweep, where) and not lowered and raised < SHIFTS:
            where, raised = where._replace(first=where.first * SHIFT), raised + 1
        else:
            done.append(sweep)
    return where.rates(), tuple(done)


def _sweep(
    request: RangeRequest, task: Task, where: _Range, number: int, doing: list[str]
) -> Sweep:
    """One sweep of a model of its own, over its own order of the samples."""
    plan = request.take.plan
    own = plan.run.seed + number
    taken = plan.model_copy(update={"run": plan.run.model_copy(update={"seed": own})})
    stepper = Stepper(request.take.model_copy(update={"plan": taken}), task, device_of(plan.device))
    try:
        stepper.build()
        stepper.scaler = stepper.precision.scaler()
        draws = Draws.of(plan, task, own)
        windows = draws.windows(where.steps, plan.batch.micro_batch, request.parts)
        before = [_loss(stepper, window, own, i) for i, window in enumerate(windows)]
        losses = _risen(stepper, windows, where.rates(), before, own)
    finally:
        doing[0] = stepper.doing
    return Sweep(own, tuple(losses), tuple(before))


def _risen(
    stepper: Stepper,
    windows: list[list[list[int]]],
    rates: list[float],
    before: list[float],
    own: int,
) -> list[float]:
    """The loss before each step, until it is not finite or has diverged."""
    losses: list[float] = []
    learned: list[float] = []
    apart = statistics.pstdev(before)
    above, lowest = 0, 0.0
    for i, (window, rate) in enumerate(zip(windows, rates, strict=True)):
        optimizers.set_rate(stepper.optimizer, rate)
        _seed(own, i)
        try:
            stepper.step(window)
        except NotFiniteError:
            break
        losses.append(statistics.fmean(stepper.losses[-len(window) :]))
        learned.append(losses[-1] - before[i])
        lowest = min(lowest, statistics.fmean(learned[-ROUGH:]))
        far = FAR * max(-lowest, apart, 1e-3 * abs(before[i]))
        above = above + 1 if learned[-1] > far else 0
        if above >= AT_ONCE:
            break
    return losses


@torch.no_grad()
def _loss(stepper: Stepper, window: list[list[int]], own: int, position: int) -> float:
    """The loss an item, mean over a window's micro-batches, in training mode but not learnt from.

    Raises NotFiniteError.
    """
    _seed(own, position)
    values = []
    for indices in window:
        batch = stepper.batch(stepper.task.train, indices, "training")
        stepper.doing = "the loss: "
        with stepper.precision.autocast():
            loss = stepper.task.loss(stepper.model, batch)
        values.append(float(loss.total) / (float(loss.weight) or 1.0))
    mean = statistics.fmean(values)
    if not math.isfinite(mean):
        raise NotFiniteError(f"the loss is {mean} before the first step")
    return mean


def _seed(own: int, position: int) -> None:
    """The same chance (augmentation, dropout) for a window before learning and after."""
    seed((own * 1_000_003 + position) & 0x7FFFFFFFFFFFFFFF)


def _too_high(sweep: Sweep, where: _Range) -> bool:
    """It diverged within the first tenfold of the rate."""
    return len(sweep.losses) < min(math.log(10, where.factor), where.steps)


def _too_low(sweep: Sweep, where: _Range) -> bool:
    """It went through, and was lowest where it ended: within the last threefold of the rate."""
    if len(sweep.losses) < where.steps:
        return False
    learned = [now - then for now, then in zip(*sweep[1:], strict=True)]
    means = [statistics.fmean(learned[max(i + 1 - ROUGH, 0) : i + 1]) for i in range(where.steps)]
    lowest = min(range(where.steps), key=means.__getitem__)
    return lowest > where.steps - math.log(3, where.factor) and means[lowest] < 0


def main() -> None:
    """Read the request, take the steps, answer."""
    serve(lambda line: measured(RangeRequest.model_validate_json(line)))


if __name__ == "__main__":
    main()
    sys.exit()
