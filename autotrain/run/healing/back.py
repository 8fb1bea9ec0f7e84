"""Back to a checkpoint, or to the beginning, within a run."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import torch

from autotrain.errors import AutotrainError
from autotrain.events import Event, Warned
from autotrain.optimizer import set_rate
from autotrain.run.assemble import build_model, itinerary
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.run.keeping.handover import take_over
from autotrain.run.keeping.tensors import flatten_model, restore_model
from autotrain.run.meter import Meter
from autotrain.run.processes.ranks import from_first
from autotrain.run.schedule import Schedule
from autotrain.run.standing import RunState
from autotrain.run.state import Run

Way = Generator[Event, None, str]


def replay(run: Run) -> Way:
    """The whole run stands where its newest checkpoint stood, and goes the same way again.

    Returns which it is.
    """
    yield from run.keeper.settle()
    found = yield from _first_good(run, [s for s in _steps(run) if s <= run.state.step])
    if found is None and not _begins(run):
        raise _lost(run)
    _leave_step(run)
    if found is None:
        _begin(run)
        plan = run.plan
        run.state, run.schedule = RunState(), Schedule(
            plan.schedule, plan.optimizer.lr, run.cadence.total_steps, run.task.better
        )  # fmt: skip
        run.guard.accept()
        set_rate(run.optimizer, run.schedule.at(0))
    else:
        run.restore(found)
    run.go_on(itinerary(run))
    return "back to the beginning" if found is None else f"back to step {found.step}"


def unlearn(run: Run, first: int) -> Way:
    """What was learned is as before step `first`; the run goes on where it stands.

    Where that was done before, and no checkpoint has been made on the way since, it goes further
    back this time, if there is a checkpoint. Where none is before it, and the run began with
    weights that were given and are not there any more, the oldest one serves. Returns which it is.
    """
    yield from run.keeper.settle()
    every = _steps(run)
    state, before = run.state, [s for s in every if s < first]
    to, at = state.went_back_to, state.went_back_at
    if to is not None and at is not None and before and before[0] <= at:
        before = [s for s in before if s < to] or before
    found = yield from _first_good(run, before)
    if found is None and not _begins(run):
        found = yield from _first_good(run, every[::-1])
        if found is None:
            raise _lost(run)
    _leave_step(run)
    if found is None:
        _begin(run)
    else:
        run.take_back(found)
    state.went_back_at, state.went_back_to = state.step, found.step if found else None
    run.go_on(itinerary(run))
    if found is None:
        return "back to the weights of the beginning"
    oldest = "" if found.step < first else ", the oldest checkpoint"
    return f"back to what was learned by step {found.step}{oldest}"


def _steps(run: Run) -> list[int]:
    """Checkpoints, newest first."""
    return from_first(run.ranks, lambda: checkpoint.steps(run.keeper.directory), "going back")


def _first_good(run: Run, steps: list[int]) -> Generator[Event, None, Snapshot | None]:
    """The first of those checkpoints that verifies; one that is torn is told."""
    found, torn = from_first(run.ranks, lambda: _read(run.keeper.directory, steps), "going back")
    for said in torn:
        message = f"passed over a torn checkpoint: {said}"
        yield Warned(step=run.state.step, epoch=run.epoch, message=message)
    return found


def _read(directory: Path, steps: list[int]) -> tuple[Snapshot | None, list[str]]:
    """The first of them that verifies, and what is wrong with those before it."""
    _, found, torn = checkpoint.newest_whole(directory, steps)
    return found, [error.message for error in torn]


def _leave_step(run: Run) -> None:
    """Nothing is left of the step under way, and nothing since the last log point counts."""
    run.optimizer.zero_grad(set_to_none=True)
    run.meter = Meter()
    run.committing = False


def _begins(run: Run) -> bool:
    """Whether the weights that the run began with can be had: its own, or a whole checkpoint's."""

    def found() -> bool:
        if run.given is None:
            return True
        try:
            checkpoint.verify(Path(run.given))
        except AutotrainError:
            return False
        return True

    return from_first(run.ranks, found, "going back")


def _lost(run: Run) -> AutotrainError:
    """For a run that can go back to nothing."""
    return AutotrainError(
        f"there is no checkpoint to go back to, and {run.given}, whose weights the run began "
        "with, is none",
        "a larger checkpoint.keep, and a lower optimizer.lr",
    )


def _begin(run: Run) -> None:
    """The weights that the run began with, and an optimizer that has seen nothing."""
    fresh = build_model(run.plan, run.task, torch.device("cpu"))  # two may not fit the device
    if run.given is not None:
        take_over(fresh, Path(run.given))
    restore_model(run.model, flatten_model(fresh), run.layout)
    run.optimizer.state.clear()
    if run.average is not None:
        run.average.restart()
    run.set_precision(run.plan.precision.dtype)
