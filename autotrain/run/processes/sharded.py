"""A window's gradient when parameters, gradients and optimizer states are divided among ranks.

Micro-batches are dealt as in `parallel`. But each block's parameters are put together from all
ranks whenever it computes, so all ranks go through the model at the same time, every one as
often: who has no micro-batch left goes along with an old one, whose gradient counts 0.
"""

from __future__ import annotations

from typing import Any

import torch

from autotrain.batches import map_tensors
from autotrain.run.loading.feed import NOTHING
from autotrain.run.meter import Number
from autotrain.run.processes.shards import Shards
from autotrain.run.processes.sharing import Buffers
from autotrain.run.processes.window import Part, backward, expected, told
from autotrain.run.state import Run
from autotrain.run.step import Rows, _not_zero


def accumulate(run: Run, window: list[int]) -> tuple[Rows, Number, Number] | None:
    """As in `parallel`; the gradients are each rank's parts of them."""
    ranks, shards, doing = run.ranks, run.shards, f"step {run.state.step + 1}"
    assert ranks is not None
    assert shards is not None
    if ranks.buffers is None:
        ranks.buffers = Buffers(run.model)
    ranks.buffers.follow()
    part, divisor = Part(), expected(ranks, window)
    try:
        with ranks.lock.section(doing):
            _passes(run, shards, part, window, divisor)
    except BaseException:
        shards.forget()
        raise
    met = told(run, part, doing)
    assert met is not None
    sums, found = met
    if not found["taken"]:
        return [], 0.0, 1.0
    shards.hand_over()
    return [sums], sums["weight"], divisor / _not_zero(sums["weight"])


def _passes(run: Run, shards: Shards, part: Part, window: list[int], divisor: Number) -> None:
    """Each rank's share, all at the same time; gradients are added up in the last pass."""
    ranks, any_taken = shards.ranks, False
    turns = -(-len(window) // ranks.world)
    for turn in range(turns):
        number, last = turn * ranks.world + ranks.rank, turn == turns - 1
        batch, own = _next(run, shards, number, len(window))
        taken, bare = ranks.lock.enter(f"micro-batch {turn}", own, batch is NOTHING)
        any_taken = any_taken or taken
        if not taken and not (last and any_taken):
            continue
        if bare:
            batch = _borrowed(run, shards, batch)
        run.draws.before(run.state.step, number)
        shards.adds_up(last)
        total = shards.loss(batch)
        made = shards.loss.taken()
        if own:
            part.add(made)
            backward(run, total, divisor)
        else:
            torch.autograd.backward(total, torch.zeros_like(total))


def _next(run: Run, shards: Shards, number: int, count: int) -> tuple[Any, bool]:
    """A rank's next micro-batch and True; else its last one, or NOTHING, and False."""
    if number < count:
        taken = run.feed.take(run.state.step // run.cadence.steps_per_epoch)
        if taken is not NOTHING:
            shards.spare = run.form.batch(taken)
            return shards.spare, True
    return shards.spare, False


def _borrowed(run: Run, shards: Shards, batch: Any) -> Any:
    """Where a rank never had a batch: it gets another's."""
    ranks = shards.ranks
    ranks.lock.enter("lends a micro-batch")
    bare = batch is NOTHING
    lent = ranks.gather(None if bare else map_tensors(lambda tensor: tensor.cpu(), batch))
    if bare:
        first = next(each for each in lent if each is not None)
        shards.spare = batch = map_tensors(lambda tensor: tensor.to(run.device), first)
    return batch
