"""One optimizer step: the same gradient to rounding, however its window is cut.

Every loss comes as a sum and the weight it was summed over, so the gradient of a window is that
of all its samples, frames or tokens alike: long sequences count as much as they hold, and the
ragged last window as much as it has. BatchNorm alone sees the cut.
"""

from __future__ import annotations

import functools
from time import perf_counter

import torch

from autotrain import sparse
from autotrain.optimizer import set_rate
from autotrain.recompute import unlike
from autotrain.run.healing import faults, guard
from autotrain.run.loading.feed import NOTHING
from autotrain.run.losses import sound
from autotrain.run.meter import Number, detached
from autotrain.run.signals import Stop
from autotrain.run.state import Run
from autotrain.task import Loss

Rows = list[dict[str, Number]]


def take_step(run: Run, stop: Stop) -> None:
    """One optimizer step: backward over the window's micro-batches, then the update.

    If asked to stop on the way, or at an exception, all is as it was before the step. So it is
    too where the guard finds the step bad: the next one goes on behind its samples.
    """
    begun, run.feed.waited, compiled = perf_counter(), 0.0, run.form.compiled
    stop.woken = False
    window = run.feed.itinerary.order.sizes(run.state.step)
    run.buffers.keep()
    try:
        done = (_accumulate if run.ranks is None else _shared)(run, window, stop)
        bad = _updated(run, *done) if done is not None and done[0] else 0.0
    except BaseException as error:
        run.rewind()
        # A supervisor's SIGTERM reaches the workers as well: their end is part of the wish.
        if stop.reason and faults.lost_workers(error):
            return None
        with unlike():
            raise
    if done is None:
        return run.rewind()
    rows = done[0]
    if not rows:
        return _pass_over(run)
    run.state.samples += sum(window)
    seconds = perf_counter() - begun
    waited, limit = run.feed.waited, run.guard.limit
    if run.form.compiled > compiled or stop.woken:  # no step like the others
        run.meter.untimed += 1
        seconds, waited = 0.0, 0.0 if stop.woken else waited
    run.meter.add(run.state.step, rows, bad, sum(window), seconds, waited, limit)
    return None


def _pass_over(run: Run) -> None:
    """No sample of the window could be used: the weights stay, the next step is another one's."""
    run.state.step += 1
    set_rate(run.optimizer, run.schedule.at(run.state.step))
    note = f"no sample of step {run.state.step} could be used: the weights stay as they were"
    run.form.notes.append(note)


def _accumulate(
    run: Run, window: list[int], stop: Stop
) -> tuple[Rows, Number, Number | None] | None:
    """Gradients of the window, its weight, and what they are to be multiplied with.

    None: asked to stop. The window's weight is known only after its last micro-batch, and asking
    the device for it would make the host wait. So each gradient is divided by what the first one
    makes us expect, which keeps fp16 in range, and all are set right once, at the end.
    """
    rows: Rows = []
    weight: Number = 0.0
    expected: Number = 1.0
    epoch = run.state.step // run.cadence.steps_per_epoch
    for number, _ in enumerate(window):
        if number and stop.reason and not run.draws.unsettled():
            return None
        taken = run.feed.take(epoch)
        if taken is NOTHING:
            continue
        batch = run.form.batch(taken)
        run.draws.before(run.state.step, number)
        loss = run.loss(batch)
        this = _weight(loss)
        if not rows:
            expected = _not_zero(this) * len(window)
        torch.autograd.backward(loss.total, run.scaler.scale(_share(loss.total, expected)))
        if not rows and len(window) > 1:
            run.form.hold(run.parameters)
        weight = weight + this
        rows.append(_row(loss, this))
    return rows, weight, expected / _not_zero(weight) if len(window) > 1 else None


def _shared(run: Run, window: list[int], _stop: Stop) -> tuple[Rows, Number, Number] | None:
    """The same, where several processes share the window."""
    if run.shards is not None:
        from autotrain.run.processes import sharded

        return sharded.accumulate(run, window)
    from autotrain.run.processes import parallel

    return parallel.accumulate(run, window)


def _share(total: torch.Tensor, expected: Number) -> torch.Tensor:
    """The gradient that a total begins with: 1 / expected."""
    if isinstance(expected, torch.Tensor):
        return (1.0 / expected).to(total.dtype).expand_as(total)
    return _whole(1.0 / expected, total.shape, total.dtype, total.device)


@functools.lru_cache(maxsize=64)
def _whole(
    value: float, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype, device=device)


def _row(loss: Loss, weight: Number) -> dict[str, Number]:
    """What is kept of a micro-batch until the log point."""
    row: dict[str, Number] = {"loss": detached(loss.total), "weight": weight}
    for name, value in loss.parts.items():
        row[f"part {name}"] = detached(value)
    return row


def _weight(loss: Loss) -> Number:
    """As a number, or on the loss's device in its precision (at least fp32); else NaN."""
    if not isinstance(loss.weight, torch.Tensor) or loss.weight.device.type == "cpu":
        return sound(detached(loss.weight))
    dtype = torch.promote_types(loss.total.dtype, torch.float32)
    return sound(loss.weight.detach().to(loss.total.device, dtype))


def _not_zero(weight: Number) -> Number:
    """1 in place of 0: where every token is masked, a gradient of 0 must stay 0."""
    if isinstance(weight, torch.Tensor):
        return torch.where(weight == 0, 1.0, weight)
    return weight or 1.0


def _updated(run: Run, rows: Rows, weight: Number, correction: Number | None) -> Number:
    """The update; what fails in it on one of several processes fails on all."""
    if run.ranks is None:
        return _update(run, rows, weight, correction)
    with run.ranks.updating(run):
        return _update(run, rows, weight, correction)


def _update(run: Run, rows: Rows, weight: Number, correction: Number | None) -> Number:
    """Unscale, clip by norm, judge, step, update the scaler, set the next rate, drop the gradients.

    Returns the guard's verdict.
    """
    gradients = sparse.values(run.parameters)
    if gradients:
        run.scaler.unscale_(run.optimizer)
        if run.shards is not None and run.scaler.is_enabled():
            run.shards.agree_on_scale(run.scaler, run.optimizer)
        if not (correction is None or (isinstance(correction, float) and correction == 1.0)):
            torch._foreach_mul_(gradients, correction)
    total = sum(row["loss"] for row in rows)
    bad = run.guard.bad(total / _not_zero(weight), _size(run, gradients))
    run.committing = True
    if gradients:  # else no parameter took part
        _commit(run, bad)
        if run.average is not None:
            run.average.update(bad)
        run.scaler.update()
    run.state.step += 1
    set_rate(run.optimizer, run.schedule.at(run.state.step))
    for parameter in run.parameters:  # as zero_grad does, without its hooks: 10 us
        parameter.grad = None
    run.committing = False
    return bad


def _size(run: Run, gradients: list[torch.Tensor]) -> Number:
    """What is finite where the gradients are: their norm, where it is needed anyway."""
    clip, logs = run.plan.optimizer.clip_norm, run.cadence.logs(run.state.step + 1)
    if clip is not None:
        run.meter.grad_norm = _clipped(run, gradients, clip)
    elif run.shards is not None:
        run.meter.grad_norm = run.shards.norm(gradients)
    elif logs:
        run.meter.grad_norm = torch.nn.utils.get_total_norm(gradients)
    elif not gradients or (run.guard.mode == "log" and not run.scaler.is_enabled()):
        return 0.0
    else:
        return run.guard.size(gradients)
    return detached(run.meter.grad_norm)


def _clipped(run: Run, gradients: list[torch.Tensor], most: float) -> Number:
    """Clip by norm; returns the norm. To the bit as torch's own function.

    Where the norm can be read for nothing, gradients that are short enough are left alone.
    """
    if run.shards is not None:
        norm = run.shards.norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(run.parameters, most, norm)
        return norm
    if run.guard.mode != "host" or not run.alike or not gradients:
        return sparse.clip(run.parameters, gradients, most)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    read = detached(norm)
    if read + 1e-6 > most:
        torch._foreach_mul_(gradients, detached((most / (norm + 1e-6)).clamp(max=1.0)))
    return read


def _commit(run: Run, bad: Number) -> None:
    """The optimizer's step, unless it is bad: then all is as it was before."""
    if isinstance(bad, torch.Tensor) and run.guard.mode == "device":
        guard.commit(run.optimizer, bad)
        run.buffers.settle(bad)
    elif isinstance(bad, torch.Tensor) or not bad:
        run.scaler.step(run.optimizer)
    else:
        run.buffers.restore()
