"""What a run mends by itself: each fault has one cure, and each cure its limit.

out of memory     the same global batch is cut finer; the mathematics stay as they are
NaN or a spike    the step is not committed and its samples are passed over (see guard); where
                  that does not end, back to a checkpoint from before, and on behind it all
dead workers      new ones start where the old ones stopped
loss scale gone   fp16 does not hold this model's gradients: bf16 or fp32 does

What a cure changes in the plan is in its Healed event, for whoever keeps the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from autotrain.device import out_of_memory
from autotrain.events import Event, Healed, Warned
from autotrain.run import cures, faults
from autotrain.run.meter import Taken
from autotrain.run.state import NotFiniteError, Run, ScaleGoneError

# So many steps in a row that could not be committed are no accident of the data.
STREAK = 3
# A cure that did not help is tried no more than so often at one place.
TRIES = 3
NAMED_SAMPLES = 8

Cure = Callable[[Run, Exception], Iterator[Event]]


def mend(run: Run, error: Exception) -> Iterator[Event]:
    """Put right what went wrong, so that the loop can go on; raises it where nothing helps."""
    cure = next((cure for meets, cure in CURES if meets(error)), None)
    if cure is None or not _worth_trying(run):
        raise error
    # Its frames hold the tensors of the step that failed.
    error.__traceback__ = None
    yield from cure(run, error)


def _worth_trying(run: Run) -> bool:
    """Whether the run got on since the last cure, or that was not yet tried too often."""
    place = (run.state.step, run.state.evaluated)
    run.tries = run.tries + 1 if place == run.mended_at else 1
    run.mended_at = place
    return run.tries <= TRIES + math.log2(run.plan.batch.micro_batch)


def look(run: Run, taken: Sequence[Taken]) -> Iterator[Event]:
    """At a log point: tell of steps that were not committed. Raises NotFiniteError where they
    do not end."""
    bad = [each for each in taken if each.bad]
    run.guard.learn(each.loss for each in taken if not each.bad)
    if run.scaler.is_enabled():
        return _insist_on_scale(run)
    for each in taken:
        run.state.bad_streak = run.state.bad_streak + 1 if each.bad else 0
    if not bad:
        return None
    if run.guard.mode == "log" or run.state.bad_streak >= STREAK:
        raise NotFiniteError(_found(run, bad), "a lower optimizer.lr, or optimizer.clip_norm")
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=_found(run, bad),
        cure="not committed: the weights are as before, its samples are passed over",
        cost_seconds=len(bad) * run.step_seconds,
    )  # fmt: skip
    return None


def look_at_figure(run: Run, loss: float) -> Iterator[Event]:
    """After an evaluation: a loss that is not finite is told, the third in a row is a fault.

    Raises NotFiniteError.
    """
    state = run.state
    state.broken_evaluations = 0 if math.isfinite(loss) else state.broken_evaluations + 1
    if not state.broken_evaluations:
        return
    message = f"the validation loss is {loss} after step {state.step}"
    advice = "a lower optimizer.lr or optimizer.clip_norm; look at the validation samples"
    if state.broken_evaluations >= STREAK:
        state.broken_evaluations = 0
        raise NotFiniteError(message, advice)
    yield Warned(step=state.step, epoch=run.epoch, message=message, advice=advice)


def _found(run: Run, bad: Sequence[Taken]) -> str:
    """What was wrong, at which steps, with which samples."""
    first = bad[0]
    if math.isfinite(first.loss):
        usual = f" where at most {run.guard.limit:.4g} was to be expected"
        spike = first.loss > run.guard.limit
        what = (
            f"the loss rose to {first.loss:.4g}{usual if spike else ', its gradient is not finite'}"
        )
    else:
        what = f"the loss became {first.loss}"
    samples = run.samples_of(first.step)
    named = ", ".join(map(str, samples[:NAMED_SAMPLES]))
    more = f" and {len(samples) - NAMED_SAMPLES} more" if len(samples) > NAMED_SAMPLES else ""
    return f"{what} at {_steps([each.step for each in bad])} (samples {named}{more})"


def _steps(numbers: Sequence[int]) -> str:
    """`step 7`, `steps 7 to 9 and 12`."""
    runs = [
        [n for _, n in group] for _, group in groupby(enumerate(numbers), lambda p: p[1] - p[0])
    ]
    parts = [f"{r[0]} to {r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs]
    text = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"step{'s' if len(numbers) > 1 else ''} {text}"


def _insist_on_scale(run: Run) -> None:
    """fp16: single overflows are how the loss scale finds its size; none is left below 1."""
    scale = run.scaler.get_scale()
    if scale < 1.0:
        raise ScaleGoneError(
            f"the loss scale fell to {scale:.3g}: fp16 does not hold the gradients",
            "precision.dtype bf16 or fp32",
        )


CURES: tuple[tuple[Callable[[BaseException], bool], Cure], ...] = (
    (out_of_memory, cures.cut_finer),
    (faults.lost_workers, cures.restart_workers),
    (lambda error: isinstance(error, NotFiniteError), cures.go_back),
    (lambda error: isinstance(error, ScaleGoneError), cures.leave_fp16),
)
