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
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from autotrain.device import ThrashingError, out_of_memory, thrashes
from autotrain.events import Event, Healed, Warned
from autotrain.run.healing import cures, faults
from autotrain.run.meter import Meter, Taken
from autotrain.run.state import NotFiniteError, Run, ScaleGoneError, SpikesError

# After so many steps it is looked whether those that could not be committed have ended, and so
# many of them in a row are no accident of the data.
LOOK, STREAK = 10, 3
# A cure that changes nothing more is tried no more than so often at one place.
TRIES = 3
NAMED_SAMPLES = 8
LOWER = "a lower optimizer.lr, or optimizer.clip_norm"

Cure = Callable[[Run, Exception], Iterator[Event]]


def mend(run: Run, error: Exception) -> Iterator[Event]:
    """Put right what went wrong, so that the loop can go on; raises it where nothing helps."""
    cure = next((cure for meets, cure in CURES if meets(error)), None)
    if cure is None or not _worth_trying(run):
        raise error
    let_go(error)
    yield from cure(run, error)


def let_go(error: BaseException) -> None:
    """Free what the frames of an error hold, the tensors of the step that failed above all.

    Those of what it came from too. Where it comes from can still be told.
    """
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        others = (each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        waiting += [other for other in others if other is not None and id(other) not in seen]


def _worth_trying(run: Run) -> bool:
    """Whether the run got further since the last cure, or that was not yet tried too often."""
    place = (run.state.step, run.state.evaluated)
    if place > run.mended_at:
        run.mended_at, run.tries = place, 0
    run.tries += 1
    return run.tries <= TRIES


def log_point(run: Run, meter: Meter) -> Iterator[Event]:
    """Tell of steps that were not committed. Raises ThrashingError."""
    yield from tell(run, meter.taken)
    _look_at_memory(run, meter.steps)


def looks(run: Run) -> bool:
    """Whether to look at the last steps: after every LOOK of them, however often a run logs.

    Where the host would have to wait for them, at the next log point.
    """
    step, meter = run.state.step, run.meter
    if run.guard.mode == "host" and step % LOOK == 0:
        meter.read()
    if not meter.unseen:
        return False
    return step == run.cadence.total_steps or step // LOOK > (meter.unseen[0].step - 1) // LOOK


def look(run: Run) -> Iterator[Event]:
    """Learn from the last steps what is usual.

    Raises NotFiniteError or ScaleGoneError where steps that cannot be committed do not end.
    """
    seen, run.meter.unseen = run.meter.unseen, []
    bad = _faults(run, seen)
    run.guard.learn(each.loss for each in seen if not each.bad or each.spikes)
    for each in seen:
        if not each.bad or each in bad:
            run.state.bad_streak = run.state.bad_streak + 1 if each.bad else 0
    fault = _scale_gone(run, bad) or (_lasting(run, bad) if bad else None)
    if fault is not None:
        yield from tell(run, run.meter.taken)  # for which there may be no log point any more
        run.meter.taken = [each for each in run.meter.taken if not each.bad]
        raise fault


def _lasting(run: Run, bad: Sequence[Taken]) -> NotFiniteError | None:
    """What to raise where steps were bad to the end, or one that was not finite was taken."""
    only_spikes = all(each.spikes for each in bad)
    if run.state.bad_streak < STREAK and (_leaves_out(run) or only_spikes):
        return None
    return (SpikesError if only_spikes else NotFiniteError)(_found(run, bad), LOWER)


def tell(run: Run, taken: Sequence[Taken]) -> Iterator[Event]:
    """Of steps that were not committed, if there were any."""
    bad, step, epoch = _faults(run, taken), run.state.step, run.epoch
    if bad and _leaves_out(run):
        cure = "not committed: the weights are as before, its samples are passed over"
        cost = len(bad) * run.step_seconds
        yield Healed(step=step, epoch=epoch, fault=_found(run, bad), cure=cure, cost_seconds=cost)
    elif bad:
        advice = "its step was taken: on this device this optimizer cannot leave it out"
        yield Warned(step=step, epoch=epoch, message=_found(run, bad), advice=advice)


def _faults(run: Run, taken: Sequence[Taken]) -> list[Taken]:
    """Bad steps. With fp16, gradients that overflow alone are none: so its scale finds its size."""
    bad = (each for each in taken if each.bad)
    if not run.scaler.is_enabled():
        return [*bad]
    return [each for each in bad if not math.isfinite(each.loss) or each.spikes]


def _leaves_out(run: Run) -> bool:
    """Whether bad steps are not taken."""
    return run.guard.mode != "log" or run.scaler.is_enabled()


def _scale_gone(run: Run, bad: Sequence[Taken]) -> ScaleGoneError | None:
    """fp16: no loss scale below 1 is left, and losses that are not finite do not go on."""
    if not run.scaler.is_enabled():
        return None
    scale = run.scaler.get_scale()
    if scale < 1.0:
        found = f"the loss scale fell to {scale:.3g}: fp16 does not hold the gradients"
    elif bad and not bad[-1].spikes and run.state.bad_streak >= STREAK:
        found = _found(run, bad)
    else:
        return None
    return ScaleGoneError(found, "precision.dtype bf16 or fp32")


def _look_at_memory(run: Run, steps: int) -> None:
    """An allocator that thrashes is out of memory, if that can be helped. Raises ThrashingError."""
    retries = run.memory.retries()
    if run.ranks is not None and run.device.type == "cuda":
        retries = max(run.ranks.gather(retries))
    if thrashes(retries, steps) and not run.mixes and cures.can_cut(run):
        raise ThrashingError(f"the allocator gave its cache back {retries} times in {steps} steps")


def look_at_figure(run: Run, loss: float | None) -> Iterator[Event]:
    """After an evaluation (None: it was broken off): a loss that is not finite is told.

    Raises NotFiniteError at the third in a row, if ever there was one that was: then the model
    is at fault, and not the validation samples.
    """
    state = run.state
    if loss is None:
        return
    if math.isfinite(loss):
        state.broken_evaluations, state.sound_evaluation = 0, state.step
        return
    state.broken_evaluations += 1
    message = f"the validation loss is {loss} after step {state.step}"
    advice = "a lower optimizer.lr or optimizer.clip_norm; look at the validation samples"
    yield Warned(step=state.step, epoch=run.epoch, message=message, advice=advice)
    left = state.rollbacks < run.plan.heal.rollbacks
    if state.broken_evaluations >= STREAK and state.sound_evaluation and left:
        state.broken_evaluations = 0
        raise NotFiniteError(message, advice, first=state.sound_evaluation + 1)


def _found(run: Run, bad: Sequence[Taken]) -> str:
    """What was wrong, at which steps, with which samples."""
    _, loss, _, limit = bad[0]
    if bad[0].spikes:
        what = f"the loss rose to {loss:.4g} where at most {limit:.4g} was to be expected"
    elif math.isfinite(loss):
        what = f"the gradient of a loss of {loss:.4g} was not finite"
    else:
        what = f"the loss became {loss}"
    samples = [i for each in bad[:NAMED_SAMPLES] for i in run.samples_of(each.step)]
    named = ", ".join(map(str, samples[:NAMED_SAMPLES]))
    more = ", ..." if len(samples) > NAMED_SAMPLES else ""
    return f"{what} at {_steps([each.step for each in bad])} (samples {named}{more})"


def _steps(numbers: Sequence[int]) -> str:
    """`step 7`, `steps 7 to 9 and 12`."""
    runs = [
        [n for _, n in group] for _, group in groupby(enumerate(numbers), lambda p: p[1] - p[0])
    ]
    parts = [f"{r[0]} to {r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs]
    text = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"step{'s' if len(numbers) > 1 else ''} {text}"


CURES: tuple[tuple[Callable[[BaseException], bool], Cure], ...] = (
    (out_of_memory, cures.cut_finer),
    (faults.lost_workers, cures.restart_workers),
    (lambda error: isinstance(error, NotFiniteError), cures.go_back),
    (lambda error: isinstance(error, ScaleGoneError), cures.leave_fp16),
)
