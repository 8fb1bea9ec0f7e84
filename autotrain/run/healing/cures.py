"""The cures: each takes the run and the error, changes the run, and tells what it did."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

import torch

from autotrain.amending import amended
from autotrain.errors import DoesNotFitError
from autotrain.events import Event, Healed, Warned
from autotrain.run.assemble import itinerary
from autotrain.run.healing import back
from autotrain.run.loading.bucketed import BucketedOrder
from autotrain.run.loading.itinerary import ordered
from autotrain.run.loading.lost import LoaderDiedError, TooNarrowError
from autotrain.run.loading.order import Order
from autotrain.run.state import NotFiniteError, Run, SpikesError
from autotrain.schema import Amendment, BatchSection, Dtype

# Into so many parts a micro-batch is cut where one of these divides it.
PARTS = (2, 3, 5)


def cut_finer(run: Run, error: Exception) -> Iterator[Event]:
    """Out of memory: the same samples a step, in smaller parts.

    What an update takes does not depend on its batch: there, one parameter is updated at a time.
    """
    begun, updating = perf_counter(), run.committing
    if run.mixes:
        raise DoesNotFitError(
            f"out of memory, and this loss ties the samples of a micro-batch together: {error}",
            "plan again with a smaller batch.global_batch",
        ) from error
    at, did = run.state.step, ""
    if updating:  # it may be half done
        did = yield from back.replay(run)
    _free(run.device)
    if updating and run.plan.optimizer.implementation == "foreach":
        section, changed = "optimizer", one_by_one(run.optimizer)
        cure = "parameters are updated one by one"
    else:
        section, changed = "batch", _finer_for(run)
        cure = _cut_said(run, changed)
    amends = _amend(run, section, changed, str(error))
    if changed:
        run.tries = 0  # it is another try, and they end with micro-batches of 1
        yield from _keep(run)
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=f"out of memory: {_first_line(error)}",
        cure="; ".join(part for part in (cure, did) if part),
        cost_seconds=perf_counter() - begun + (at - run.state.step) * run.step_seconds,
        amends=amends,
    )  # fmt: skip


def can_cut(run: Run) -> bool:
    """Whether micro-batches can still be cut."""
    return bool(_finer_for(run))


def _finer_for(run: Run) -> dict[str, Any]:
    """As `finer`, until fewer samples are taken at a time; one alone is too few for BatchNorm."""
    batch, changed = run.plan.batch, dict[str, Any]()
    before, order = _most(run, batch)
    while more := finer(batch, least=2 if order.no_single else 1):
        batch, changed = batch.model_copy(update=more), changed | more
        most, order = _most(run, batch)
        if most < before:
            break
    else:
        return {}
    if not order.no_single or isinstance(order, BucketedOrder):
        return changed
    singles = any(1 in order.sizes(step) for step in range(order.steps_per_epoch))
    return {} if singles else changed


def _most(run: Run, batch: BatchSection) -> tuple[int, Order | BucketedOrder]:
    """Samples in the largest micro-batch of what comes next, if cut so; and the order of all.

    That is an evaluation, or a step: where more processes share it than were planned, each takes
    fewer at a time than the plan says.
    """
    plan, state = run.plan.model_copy(update={"batch": batch}), run.state
    world = 1 if run.ranks is None else run.ranks.world
    order, valid = ordered(plan, run.parts, run.model, world=world)
    ends = run.cadence.evaluates(state.step) or state.step == run.last
    if ends and state.evaluated != state.step:
        return max(map(len, valid)), order
    if isinstance(order, BucketedOrder):
        return _size(batch), order
    return min(order.micro_batch, order.count), order


def _size(batch: BatchSection) -> int:
    """Samples in the largest micro-batch of a plan."""
    return -(-batch.micro_batch // (batch.split or 1))


def finer(batch: BatchSection, *, least: int) -> dict[str, Any]:
    """Changes to a plan's batch that halve its micro-batches or so; none: they are the least."""
    micro, split = batch.micro_batch, batch.split or 1
    if _size(batch) <= least:
        return {}
    parts = next((p for p in PARTS if micro % p == 0 and micro // p >= least), None)
    if parts is None or batch.buckets is not None or split > 1:
        return {"split": 2 * split if -(-micro // (2 * split)) >= least else split + 1}
    return {"micro_batch": micro // parts, "accum_steps": batch.accum_steps * parts}


def one_by_one(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Updates without temporaries as large as the model; the same mathematics."""
    for group in optimizer.param_groups:
        group["foreach"] = False
    return {"implementation": "for-loop"}


def _cut_said(run: Run, changed: Mapping[str, Any]) -> str:
    batch = run.plan.batch
    (before, _), (after, _) = (
        _most(run, each) for each in (batch, batch.model_copy(update=changed))
    )
    if not changed:
        return f"memory was freed and it is tried again: micro-batches of {after} are the smallest"
    return f"micro-batches of {before} became {after}; the global batch stays {batch.global_batch}"


def _keep(run: Run) -> Iterator[Event]:
    """A checkpoint of where the plan was changed, so that a resume goes the same way to the bit."""
    step = run.state.step
    if step == 0 or step in run.keeper.good:
        return
    try:
        yield from run.keeper.save("healed", run.epoch, step, run.snapshot)
    except Exception as error:
        message = f"no checkpoint here: {_first_line(error)}"
        yield Warned(step=step, epoch=run.epoch, message=message)


def _amend(run: Run, section: str, changed: Mapping[str, Any], error: str) -> dict[str, list[Any]]:
    """Change the plan in force, and the way through the data with it."""
    before, why = getattr(run.plan, section), error.strip().partition("\n")[0]
    made = [
        Amendment(
            step=run.state.step, key=f"{section}.{key}", before=getattr(before, key), after=value,
            why=why,
        )
        for key, value in changed.items()
    ]  # fmt: skip
    run.plan = amended(run.plan, made)
    run.go_on(itinerary(run))
    return {each.key: [each.before, each.after] for each in made}


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def restart_workers(run: Run, error: Exception) -> Iterator[Event]:
    """Dead workers, where new ones in their place (see feed) did not help: fewer of them."""
    begun, workers = perf_counter(), run.plan.loader.workers
    repeated = run.tries > 1 or (isinstance(error, LoaderDiedError) and error.repeated)
    # What killed a worker would kill the run.
    least = 0 if isinstance(error, TooNarrowError) else 1
    if repeated and workers <= least:
        raise error
    fewer = workers // 2 if repeated else workers
    changed = {"workers": fewer} if fewer != workers else {}
    amends = _amend(run, "loader", changed, str(error))
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=_first_line(error),
        cure="the step begins again" + (f" with {fewer} workers" if amends else ", with new ones"),
        cost_seconds=perf_counter() - begun, amends=amends,
    )  # fmt: skip


def go_back(run: Run, error: Exception) -> Iterator[Event]:
    """NaN or spikes that do not end: back to what was learned by a checkpoint from before.

    The run goes on where it stands, so that all samples in between are passed over: from the same
    weights over the same samples it would only get here again. Finite losses that are no lower
    after that, or after the last such return, are no fault: they are the new level.
    """
    begun, state, most = perf_counter(), run.state, run.plan.heal.rollbacks
    assert isinstance(error, NotFiniteError)
    first = error.first or state.step + 1 - max(state.bad_streak, 1)
    if isinstance(error, SpikesError) and (
        state.rollbacks >= most or state.went_back_at == first - 1
    ):
        run.guard.accept()
        lost = state.bad_streak
        cure = "it is taken for the new level: nothing counts as a spike until that is known"
    elif state.rollbacks >= most:
        raise error
    else:
        state.rollbacks += 1
        said = yield from back.unlearn(run, first)
        lost = state.step - (state.went_back_to or 0)
        cure = f"{said}, and on behind step {state.step}: {state.rollbacks} of {most} such returns"
    state.bad_streak = 0
    yield Healed(
        step=state.step, epoch=run.epoch, fault=_first_line(error), cure=cure,
        cost_seconds=perf_counter() - begun + lost * run.step_seconds,
    )  # fmt: skip


def leave_fp16(run: Run, error: Exception) -> Iterator[Event]:
    """The loss scale is gone: the exponents of bf16 and fp32 reach further."""
    begun, dtype = perf_counter(), beyond_fp16(run.device)
    amends = _amend(run, "precision", {"dtype": dtype}, str(error))
    run.set_precision(dtype)
    run.state.bad_streak = 0
    yield from _keep(run)
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=_first_line(error),
        cure=f"the precision is {dtype} from here on",
        cost_seconds=perf_counter() - begun, amends=amends,
    )  # fmt: skip


def beyond_fp16(device: torch.device) -> Dtype:
    """bf16 where the device computes in it; by emulation it is slower than fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" else "fp32"
