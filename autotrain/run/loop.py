"""The training loop: a generator of events that does what a plan says, one step after another.

    for event in train(plan, task, directory, task_file=path):
        show(event)

What is random is a function of position (see seeds), what is due is a function of the step
(see cadence), and a checkpoint is made between two steps only. So a run that was stopped
anywhere and resumed goes the way it would have gone, on a CPU to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter

from autotrain.device import capped, settings
from autotrain.errors import AutotrainError
from autotrain.events import Evaluated, Event, Started, Step, Stopped, StopReason, Warned
from autotrain.foreign.weights import Foreign
from autotrain.optimizer import set_rate
from autotrain.run.assemble import assemble
from autotrain.run.evaluate import evaluate
from autotrain.run.healing import faults, heal
from autotrain.run.lock import held
from autotrain.run.meter import Meter
from autotrain.run.processes.ranks import Ranks, together
from autotrain.run.signals import Stop
from autotrain.run.state import Run
from autotrain.run.step import take_step
from autotrain.run.watching import watch
from autotrain.schema import Plan
from autotrain.task import Task


def train(
    plan: Plan,
    task: Task,
    directory: Path,
    *,
    task_file: Path,
    resume: bool = False,
    max_steps: int | None = None,
    stop: Stop | None = None,
    weights: Path | Foreign | None = None,
    ranks: Ranks | None = None,
) -> Iterator[Event]:
    """Carry a plan out in `directory`: first a Started event, last a Stopped one.

    `resume` goes on from the newest checkpoint that verifies. `max_steps` counts from the
    beginning of the run, a resumed one too. `stop` is looked at between micro-batches. `weights`:
    a checkpoint of another run, or a file, whose weights this one begins with. `ranks`: the
    processes that train together, each of which goes through all of this; only rank 0 writes.
    Raises AutotrainError: before Started where the run cannot begin, after Stopped where it
    could not go on (DoesNotFitError: memory ran out).
    """
    stop, begun = stop or Stop(), perf_counter()
    with ExitStack() as stack:
        with together(ranks, "the run cannot begin"):
            if ranks is None or ranks.first:
                stack.enter_context(held(directory))
            stack.enter_context(settings(plan))
            stack.enter_context(capped(plan))
            run = assemble(
                plan, task, directory, task_file=task_file, resume=resume, max_steps=max_steps,
                weights=weights, ranks=ranks,
            )  # fmt: skip
        stack.enter_context(closing(run.feed))
        stack.enter_context(run.keeper)
        own, stop = stop, stop if ranks is None else ranks.agreed(stop)
        yield _started(run)
        if run.taken is not None and run.taken.sha256 is not None:
            yield from _save(run, "imported")  # from here on nobody needs the file
        yield from run.notes
        yield from run.news()
        try:
            reason = yield from _steps(run, stop)
            _insist_on_checkpoint(run)
        except Exception as error:
            reason = faults.reason_of(error)
            yield from run.news()
            yield from run.keeper.settle()
            yield from _emergency(run, reason)
            yield from run.keeper.end(own)
            fault = faults.explained(error, f"step {run.state.step + 1}")
            yield _stopped(run, reason, fault.message, begun)
            raise fault from error
        yield from run.keeper.end(own)
        yield _stopped(run, reason, "", begun)


def _steps(run: Run, stop: Stop) -> Generator[Event, None, StopReason]:
    """Do what is due, then take a step, until something ends the run."""
    first = run.state.step
    while True:
        try:
            yield from _due(run, stop)
            reason = _ending(run, stop)
            if reason is not None:
                yield from _last_words(run, stop, reason, took_steps=run.state.step > first)
                return reason
            take_step(run, stop)
            yield from run.news()
        except Exception as error:
            yield from run.news()
            yield from heal.mend(run, error)


def _ending(run: Run, stop: Stop) -> StopReason | None:
    """Why the run ends here, if it does."""
    state, patience = run.state, run.plan.early_stop.patience
    if state.step >= run.cadence.total_steps and state.evaluated == state.step:
        return "finished"
    if stop.reason is not None:
        return stop.reason
    if patience is not None and state.bad_evaluations >= patience:
        return "early_stop"
    return "max_steps" if state.step >= run.last else None


def _due(run: Run, stop: Stop) -> Iterator[Event]:
    """Log, evaluate and save as planned for this step. A wish to stop leaves it to the resume."""
    state, cadence = run.state, run.cadence
    yield from run.keeper.news()
    if run.keeper.lost_best is not None:
        state.forget_best(run.keeper.lost_best)
        run.keeper.lost_best = None
    if not stop.reason and run.meter.steps and cadence.logs(state.step):
        yield from heal.log_point(run, (yield from _log(run)))
    if not stop.reason and heal.looks(run):
        yield from heal.look(run)
    if not stop.reason and state.evaluated != state.step and cadence.evaluates(state.step):
        yield from heal.look_at_figure(run, (yield from _evaluate(run, stop)))
    best = state.best_step == state.step != run.kept_best
    asked, stop.save = stop.save, False
    saves = asked or cadence.saves(state.step) or run.keeper.due(state.step)
    if best or (saves and not stop.reason and not run.keeper.has(state.step)):
        whole = state.step % cadence.steps_per_epoch == 0
        label = "best" if best else "asked" if asked else "epoch" if whole else "step"
        yield from _save(run, label, wait=False)


def _last_words(run: Run, stop: Stop, reason: StopReason, *, took_steps: bool) -> Iterator[Event]:
    """The checkpoint of the last step, and the figures of a run that ends off its cadence.

    Those come after the checkpoint: a resume must not count an evaluation that the
    uninterrupted run would not have made.
    """
    interrupted, step = reason in ("interrupted", "terminated"), run.state.step
    yield from run.keeper.settle()
    if interrupted or step not in run.keeper.good:
        yield from _save(run, "interrupted" if interrupted else reason)
    if reason != "max_steps" or not took_steps:
        return
    if run.meter.steps:
        yield from heal.tell(run, (yield from _log(run)).taken)
    if run.state.evaluated != step:
        yield from _evaluate(run, stop)
    if run.state.best_step == step != run.kept_best:
        yield from _save(run, "best")


def _save(run: Run, label: str, *, wait: bool = True) -> Iterator[Event]:
    keep = run.keeper.save if wait else run.keeper.begin
    yield from keep(label, run.epoch, run.state.step, run.snapshot)
    if label == "best":
        run.kept_best = run.state.step


def _log(run: Run) -> Generator[Event, None, Meter]:
    """The Step event of a log point: the only place where the host reads what steps left.

    Returns the meter, read; from here on another one counts.
    """
    begun, meter, step = perf_counter(), run.meter, run.state.step
    run.draws.look()
    sensed = run.sensors.read()  # while the device still has work: the read below waits for it
    meter.read()
    sums, norm = {"loss": math.nan, "weight": 0.0} | meter.sums.read(), float(meter.grad_norm)
    means = {name: value / (sums["weight"] or 1.0) for name, value in sums.items()}
    run.state.weight += sums["weight"]
    run.meter, run.step_seconds = Meter(unseen=meter.unseen), meter.step_seconds()
    now, peak = run.memory.now_and_peak()
    point = Step(
        step=step,
        epoch=run.epoch,
        loss=means["loss"],
        parts={n.removeprefix("part "): v for n, v in means.items() if n.startswith("part ")},
        lr=run.schedule.at(step - 1),
        grad_norm=norm,
        samples=meter.samples,
        weight=sums["weight"],
        step_seconds=meter.step_seconds(perf_counter() - begun),
        wait_seconds=meter.waited / meter.steps,
        device_bytes=now,
        peak_bytes=peak,
        **sensed._asdict(),
    )
    yield point
    losses = (each.loss for each in meter.taken if not each.bad)
    yield from watch.log_point(run.state.history, point, losses, run.plan, run.cadence)
    return meter


def _evaluate(run: Run, stop: Stop) -> Generator[Event, None, float | None]:
    """The Evaluated event; returns the loss, or None if asked to stop on the way."""
    begun, state = perf_counter(), run.state
    run.draws.look()
    figures = evaluate(run, stop)
    if figures is None:
        return None
    monitored = figures.monitored(run.task.monitor)
    improved = state.judge(monitored, run.task.better, run.plan.early_stop.min_delta)
    state.evaluated = state.step
    run.schedule.observe(monitored)
    set_rate(run.optimizer, run.schedule.at(state.step))
    told = Evaluated(
        step=state.step,
        epoch=run.epoch,
        loss=figures.loss,
        metrics=figures.metrics,
        best=improved,
        bad_evaluations=state.bad_evaluations,
        seconds=perf_counter() - begun,
    )
    yield told
    yield from run.news()
    yield from watch.evaluation(
        state.history, told, monitored, run.task.better, run.plan, run.cadence
    )
    return figures.loss


def _emergency(run: Run, reason: StopReason) -> Iterator[Event]:
    """Keep the last whole step, unless it is poisoned, half made, or the very beginning."""
    if reason == "not_finite" or run.committing or run.state.step == 0:
        return
    try:
        yield from _save(run, "emergency")
    except Exception as error:
        message = f"no emergency checkpoint: {error}"
        yield Warned(step=run.state.step, epoch=run.epoch, message=message)


def _insist_on_checkpoint(run: Run) -> None:
    if run.state.step not in run.keeper.good:
        raise AutotrainError(
            f"step {run.state.step}, the last one, could not be saved: {run.keeper.why}",
            "mend that, then --resume",
        )


def _started(run: Run) -> Started:
    train_count, valid_count = run.counts
    return Started(
        step=run.state.step,
        epoch=run.epoch,
        total_steps=run.cadence.total_steps,
        epochs=run.plan.train.epochs,
        steps_per_epoch=run.cadence.steps_per_epoch,
        device=str(run.device),
        monitor=run.task.monitor,
        better=run.task.better,
        train_count=train_count,
        valid_count=valid_count,
        resumed_from=str(run.resumed_from) if run.resumed_from else None,
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        weights_from=str(run.taken.path) if run.taken else None,
        weights_taken=run.taken.told if run.taken else None,
        weights_sha256=run.taken.sha256 if run.taken else None,
    )


def _stopped(run: Run, reason: StopReason, detail: str, begun: float) -> Stopped:
    return Stopped(
        step=run.state.step,
        epoch=run.epoch,
        reason=reason,
        detail=detail,
        best=run.state.best,
        best_step=run.state.best_step,
        seconds=perf_counter() - begun,
        checkpoint=str(run.keeper.newest) if run.keeper.newest else None,
        tensor_peak_bytes=run.memory.tensor_peak(),
        peak_bytes=run.memory.now_and_peak()[1],
    )
