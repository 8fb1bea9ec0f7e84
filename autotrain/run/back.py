"""Back to a checkpoint, or to the beginning, within a run."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from autotrain.errors import AutotrainError
from autotrain.events import Event, Warned
from autotrain.run import checkpoint
from autotrain.run.assemble import build_model, itinerary
from autotrain.run.checkpoint import Snapshot
from autotrain.run.state import Run, RunState


def replay(run: Run) -> Generator[Event, None, str]:
    """The whole run stands where its newest checkpoint stood, and goes the same way again.

    Returns which it is.
    """
    run.rewind()
    run.committing = False
    found = yield from _newest(run, before=run.state.step + 1)
    if found is None:
        return _begin(run)
    run.restore(found)
    _go_on(run)
    return f"back to step {found.step}"


def unlearn(run: Run, first: int) -> Generator[Event, None, str]:
    """What was learned is as before step `first`; the run goes on where it stands.

    A second time it goes further back than the first. Returns which it is.
    """
    run.rewind()
    run.committing = False
    found = yield from _newest(run, before=min(first, run.went_back_to or first))
    if found is None:
        place = run.state
        said = _begin(run)
        run.state = place
    else:
        run.take_back(found)
        said = f"back to what was learned by step {found.step}"
    run.went_back_to = found.step if found else None
    _go_on(run)
    return said


def _newest(run: Run, *, before: int) -> Generator[Event, None, Snapshot | None]:
    """The newest checkpoint before that step which verifies; one that is torn is told."""
    for step in checkpoint.steps(run.keeper.directory):
        if step < before:
            try:
                return _read(checkpoint.folder(run.keeper.directory, step))
            except AutotrainError as torn:
                message = f"passed over a torn checkpoint: {torn.message}"
                yield Warned(step=run.state.step, epoch=run.epoch, message=message)
    return None


def _read(path: Path) -> Snapshot:
    checkpoint.verify(path)
    return checkpoint.load(path)


def _begin(run: Run) -> str:
    """The weights that the run's seed makes, and an optimizer that has seen nothing."""
    fresh = build_model(run.plan, run.task, run.device)
    run.model.load_state_dict(fresh.state_dict())
    run.optimizer.state.clear()
    run.state = RunState(rollbacks=run.state.rollbacks)
    run.set_precision(run.plan.precision.dtype)
    _go_on(run)
    return "back to the weights of the beginning"


def _go_on(run: Run) -> None:
    run.forget_interval()
    run.feed.restart(itinerary(run))
