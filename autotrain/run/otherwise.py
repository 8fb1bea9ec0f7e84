"""What is otherwise than planned, or than before a resume, as a run begins: told once each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autotrain.device import rounding
from autotrain.events import Warned
from autotrain.run.loading.bucketed import BucketedOrder
from autotrain.run.loading.itinerary import refuses_one
from autotrain.run.state import Run

# Of the form of a model, what changes its rounding.
_FORM = ("compile", "cuda_graphs", "memory_format")


def than_planned(run: Run) -> Iterator[Warned]:
    """Processes, and samples."""
    processes = _processes(run)
    if processes:
        yield _told(run, processes)
    longer = _longer(run)
    if longer:
        yield _told(run, longer, "plan again: the largest possible batch has not been checked")


def than_before(run: Run, kept: Mapping[str, Any]) -> Iterator[Warned]:
    """What makes the steps from here on other than they would have been, by rounding alone.

    `kept`: what the checkpoint says of its run. Computing activations again changes nothing.
    """
    now = run.plan.model
    here = {
        **rounding(run.plan, run.device),
        **{f"model.{key}": getattr(now, key) for key in _FORM},
    }
    before = {
        **kept.get("rounding", {}),
        **{f"model.{k}": v for k, v in kept.get("model", {}).items()},
    }
    changed = [
        f"{key} was {before[key]} and is {value}"
        for key, value in here.items()
        if before.get(key, value) != value
    ]
    if changed or now.compile:
        why = "; ".join(changed) or "the model is compiled"
        yield _told(run, f"{why}: from here on the run goes as it would have, but for rounding")


def _told(run: Run, message: str, advice: str = "") -> Warned:
    return Warned(step=run.state.step, epoch=run.epoch, message=message, advice=advice)


def _longer(run: Run) -> str:
    """Samples beyond the last bucket: the data changed, or not all lengths were read."""
    order = run.feed.itinerary.order
    if not isinstance(order, BucketedOrder):
        return ""
    end, longest = order.buckets[-1][0], float(order.lengths.max())
    longer = int((order.lengths > end).sum())
    if not longer:
        return ""
    return (
        f"samples longer than the plan's longest, {end:g}: {longer} of {len(order.lengths)}, "
        f"up to {longest:g}; they go in smaller micro-batches"
    )


def _processes(run: Run) -> str:
    """What is other than planned about the processes, and what of it one may notice."""
    planned = run.plan.batch.world_size
    world = 1 if run.ranks is None else run.ranks.world
    notes = []
    if world != planned:
        here = "this is one" if world == 1 else f"these are {world}"
        for_ = f"{planned} process{'es' if planned > 1 else ''}"
        notes.append(f"the plan is for {for_} and {here}: the same steps, {_cut_here(run, world)}")
    if world > 1 and refuses_one(run.model):
        notes.append("BatchNorm's statistics are those of process 0's part of each batch")
    return "; ".join(notes)


def _cut_here(run: Run, world: int) -> str:
    order = run.feed.itinerary.order
    if isinstance(order, BucketedOrder):
        return f"their micro-batches shared by {world}" if world > 1 else "each slower"
    accum = -(-order.global_batch // (order.micro_batch * world))
    each = f" in each of {world} processes" if world > 1 else ""
    split = run.plan.batch.split or 1
    other = order.micro_batch != -(-run.plan.batch.micro_batch // split)
    draws = ", by which dropout draws otherwise" if other else ""
    return f"accumulated over {accum} micro-batches of {order.micro_batch}{each}{draws}"
