"""The cures: each takes the run and the error, changes the run, and tells what it did."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

import torch

from autotrain.errors import AutotrainError
from autotrain.events import Event, Healed
from autotrain.run import back
from autotrain.run.assemble import itinerary
from autotrain.run.state import Run
from autotrain.schema import Dtype

# Into so many parts a micro-batch is cut where one of these divides it.
PARTS = (2, 3, 5)


def cut_finer(run: Run, error: Exception) -> Iterator[Event]:
    """Out of memory: the same samples a step, in smaller parts."""
    begun, batch = perf_counter(), run.plan.batch
    if run.mixes:
        raise AutotrainError(
            f"out of memory, and this loss ties the samples of a micro-batch together: {error}",
            "plan again with a smaller batch.global_batch",
        ) from error
    if run.committing:  # the update may be half done
        yield from back.replay(run)
    changed, split = _finer(batch.micro_batch, batch.accum_steps, batch.split or 1, batch.buckets)
    if changed is None and run.tries > 1:
        raise error
    _free(run)
    amends = _amend(run, "batch", changed or {})
    was, now = _size(batch.micro_batch, batch.split), _size(run.plan.batch.micro_batch, split)
    cure = f"micro-batches of {was} became {now}; the global batch stays {batch.global_batch}"
    yield Healed(
        step=run.state.step, epoch=run.epoch,
        fault=f"out of memory: {str(error).strip().partition(chr(10))[0]}",
        cure=cure if changed else "memory was freed and the step taken again",
        cost_seconds=perf_counter() - begun, amends=amends,
    )  # fmt: skip


def _size(micro: int, split: int | None) -> int:
    return -(-micro // (split or 1))


def _finer(
    micro: int, accum: int, split: int, buckets: object
) -> tuple[dict[str, int] | None, int]:
    """Changes to the plan's batch that halve a micro-batch or so, and the split; None: it is 1."""
    if _size(micro, split) == 1:
        return None, split
    parts = next((p for p in PARTS if micro % p == 0), None)
    if parts is None or buckets is not None or split > 1:
        return {"split": 2 * split}, 2 * split
    return {"micro_batch": micro // parts, "accum_steps": accum * parts}, split


def _amend(run: Run, section: str, changed: Mapping[str, int | str]) -> dict[str, list[Any]]:
    """Change the plan in force, and the way through the data with it."""
    before = getattr(run.plan, section)
    run.plan = run.plan.model_copy(update={section: before.model_copy(update=changed)})
    run.feed.section = run.plan.loader
    run.feed.restart(itinerary(run))
    return {f"{section}.{key}": [getattr(before, key), value] for key, value in changed.items()}


def _free(run: Run) -> None:
    run.rewind()
    gc.collect()
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    elif run.device.type == "mps":
        torch.mps.empty_cache()


def restart_workers(run: Run, error: Exception) -> Iterator[Event]:
    """Dead workers: new ones, from the same place; fewer, where that was not enough."""
    begun, workers = perf_counter(), run.plan.loader.workers
    # Never none: what killed a worker would kill the run.
    fewer = max(workers // 2, 1) if run.tries > 1 else workers
    amends = _amend(run, "loader", {"workers": fewer} if fewer != workers else {})
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=str(error).partition("\n")[0],
        cure="started again where they stopped" + (f", {fewer} of them" if amends else ""),
        cost_seconds=perf_counter() - begun, amends=amends,
    )  # fmt: skip


def go_back(run: Run, error: Exception) -> Iterator[Event]:
    """NaN that does not end: what was learned goes back to a checkpoint from before it began.

    The run goes on where it stands, so that all samples in between are passed over: from the same
    weights over the same samples it would only get here again.
    """
    if run.state.rollbacks >= run.plan.heal.rollbacks:
        raise error
    begun = perf_counter()
    run.state.rollbacks += 1
    said = yield from back.unlearn(run, run.state.step + 1 - max(run.state.bad_streak, 1))
    run.state.bad_streak = 0
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=str(error).partition("\n")[0],
        cure=f"{said}, and on behind step {run.state.step}: "
        f"{run.state.rollbacks} of {run.plan.heal.rollbacks} such returns",
        cost_seconds=perf_counter() - begun,
    )  # fmt: skip


def leave_fp16(run: Run, error: Exception) -> Iterator[Event]:
    """The loss scale is gone: the exponents of bf16 and fp32 reach further."""
    begun = perf_counter()
    dtype: Dtype = "bf16" if run.device.type != "cuda" or torch.cuda.is_bf16_supported() else "fp32"
    amends = _amend(run, "precision", {"dtype": dtype})
    run.set_precision(dtype)
    yield Healed(
        step=run.state.step, epoch=run.epoch, fault=str(error).partition("\n")[0],
        cure=f"the precision is {dtype} from here on",
        cost_seconds=perf_counter() - begun, amends=amends,
    )  # fmt: skip
