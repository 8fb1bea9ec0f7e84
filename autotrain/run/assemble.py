"""Puts a run together from a plan and a task, fresh or from its newest good checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from autotrain import freezing, optimizer, prepare, repeats, sparse
from autotrain.averaging import Average
from autotrain.device import Memory, Precision, device_of
from autotrain.errors import AutotrainError
from autotrain.events import Warned
from autotrain.foreign.weights import Foreign
from autotrain.repeats import Block
from autotrain.run import otherwise
from autotrain.run.buffers import Buffers
from autotrain.run.cadence import Cadence
from autotrain.run.healing import faults, guard
from autotrain.run.keeping import checkpoint, handover, mirror, rewind
from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.run.keeping.keeper import Keeper
from autotrain.run.keeping.tensors import UNDIVIDED, insist_kept, tensors_of
from autotrain.run.loading import data
from autotrain.run.loading.aside import Aside
from autotrain.run.loading.feed import Feed
from autotrain.run.loading.itinerary import Itinerary, ordered
from autotrain.run.loading.source import Source
from autotrain.run.processes.ranks import Ranks, from_first, together
from autotrain.run.schedule import Schedule
from autotrain.run.seeds import BUILD, Draws, mixed, seed_all
from autotrain.run.state import Run
from autotrain.schema import Plan
from autotrain.task import Task

if TYPE_CHECKING:
    from autotrain.run.processes.shards import Shards


def assemble(
    plan: Plan, task: Task, directory: Path, *, task_file: Path, resume: bool,
    max_steps: int | None, weights: Path | Foreign | None = None, ranks: Ranks | None = None,
) -> Run:  # fmt: skip
    """A run, standing where its next step begins. Raises AutotrainError."""
    device = device_of(plan.device)
    divides = ranks if plan.parallel.strategy == "shard" else None
    with together(divides, "the run cannot begin"):
        keeper = _make_ready(plan, directory, ranks, resume=resume)
        model = build_model(plan, task, device)
        insist_kept(model)
        taken = handover.begin(model, directory, weights, resume=resume)
        blocks = repeats.apart(
            model, repeats.blocks(model)
        )  # what is computed again no longer looks like one
        form = prepare.prepare(model, plan.model, varying=prepare.varies(task))
    shards = None if divides is None else _divided(plan, model, blocks, divides)
    parts = data.split(task, plan)
    feed, cadence = feed_of(plan, parts, task, model, task_file, directory, max_steps, ranks)
    precision = Precision(plan.precision.dtype, device)
    if ranks is not None:
        _refuse_shared(plan, model)
    own = (shards or UNDIVIDED).own
    built = optimizer.build(plan.optimizer, model, own)
    run = Run(
        plan=plan,
        task=task,
        device=device,
        model=model,
        form=form,
        parameters=[own(p) for p in model.parameters() if p.requires_grad],
        optimizer=built,
        scaler=precision.scaler(),
        precision=precision,
        schedule=Schedule(plan.schedule, plan.optimizer.lr, cadence.total_steps, task.better),
        cadence=cadence,
        feed=feed,
        keeper=keeper,
        buffers=Buffers(model),
        memory=Memory(device),
        draws=Draws(plan.run.seed, device),
        guard=guard.Guard(guard.mode_of(device, built), plan.heal.spike_score),
        parts=parts,
        last=feed.itinerary.last,
        taken=taken,
        given=None if taken is None else str(taken.path),
        ranks=ranks,
        shards=shards,
    )
    _stand(run, directory, resume=resume)
    return run


def _divided(plan: Plan, model: torch.nn.Module, blocks: Sequence[Block], ranks: Ranks) -> Shards:
    """The model, of which each process has a part from here on."""
    from autotrain.run.processes.shards import Shards

    device, each = device_of(plan.device), plan.parallel.reduce == "each"
    return Shards(model, blocks, ranks, device, each=each)


def _stand(run: Run, directory: Path, *, resume: bool) -> None:
    """At the beginning, or where the newest checkpoint says."""
    if run.ranks is not None:
        run.draws.shared, run.keeper.alone = True, False
        if run.shards is not None:
            run.shards.loss.run, ranks = run, run.ranks
            run.keeper.on_first = lambda make: ranks.from_first(make, "saving")
        elif not run.ranks.first:
            run.keeper.idle = run.insist_finite
    if run.plan.train.ema_decay is not None:
        run.average = Average(run.model, run.plan.train.ema_decay, run.layout.own)
    optimizer.set_rate(run.optimizer, run.schedule.at(0))
    if resume:
        _resume(run, directory)
    run.notes.extend(otherwise.than_planned(run))


def _make_ready(plan: Plan, directory: Path, ranks: Ranks | None, *, resume: bool) -> Keeper:
    """Who keeps the run's checkpoints: in its folder, which is swept, and in a mirror."""
    keeper = Keeper(directory, plan.checkpoint.keep, background=plan.checkpoint.background)
    if ranks is not None and not ranks.first:
        return keeper
    if not resume and checkpoint.steps(directory):
        raise AutotrainError(
            f"{directory}: holds a run already",
            "`--resume` to go on with it, `--fresh` to replace it",
        )
    checkpoint.sweep(directory)
    if plan.checkpoint.mirror is not None:
        keeper.mirror = mirror.begun(plan, directory, resume=resume)
    return keeper


def build_model(plan: Plan, task: Task, device: torch.device) -> torch.nn.Module:
    """The task's model with the weights of the run's seed, on the device, in training mode."""
    seed_all(mixed(plan.run.seed, BUILD), device)
    try:
        model = task.model().to(device).train()
        freezing.freeze(model, plan.train.freeze)
        return model
    except AutotrainError:
        raise
    except Exception as error:
        raise faults.explained(error, "the task's model() failed") from error


def _refuse_shared(plan: Plan, model: torch.nn.Module) -> None:
    """Raise AutotrainError for what several processes cannot train together."""
    names = sparse.tables(model)
    if names:
        raise AutotrainError(
            f"the gradients of {', '.join(names)} are sparse: several processes would have to add "
            "them up, and only dense ones are",
            "one process, or sparse=False where the model makes it",
        )
    if plan.model.cuda_graphs:
        raise AutotrainError(
            "model.cuda_graphs: several processes add gradients up in memory that no graph knows",
            "one process, or --set model.cuda_graphs=false",
        )


def feed_of(
    plan: Plan, parts: data.Split, task: Task, model: torch.nn.Module, task_file: Path,
    directory: Path, max_steps: int | None, ranks: Ranks | None = None,
) -> tuple[Feed, Cadence]:  # fmt: skip
    """What hands the run its micro-batches, and when what is due."""
    share = _share(ranks)
    order, valid = ordered(plan, parts, model, world=share[1])
    cadence = Cadence.of(plan, order.steps_per_epoch)
    last = cadence.total_steps if max_steps is None else min(max_steps, cadence.total_steps)
    source = Source(parts, task, plan.run.seed, task_file)
    way = Itinerary(order, cadence, valid, last, share=_share(ranks))
    aside = Aside(source, (parts.train_count, parts.valid_count), plan.heal.bad_samples)
    feed = Feed(source, way, plan.loader, device_of(plan.device), aside, directory)
    return feed, cadence


def itinerary(run: Run) -> Itinerary:
    """The way through the data from where the run stands, cut as its plan says now."""
    share = _share(run.ranks)
    order, valid = ordered(run.plan, run.parts, run.model, world=share[1])
    place = run.state.step, run.state.evaluated
    return Itinerary(order, run.cadence, valid, run.last, *place, share)


def _share(ranks: Ranks | None) -> tuple[int, int]:
    """Of the micro-batches, which this process takes: the n-th of every so many."""
    return (0, 1) if ranks is None else (ranks.rank, ranks.world)


def _resume(run: Run, directory: Path) -> None:
    """Go on from the newest checkpoint that verifies; what is passed over becomes a note.

    Raises AutotrainError where there are some and none verifies: a run that began anew would
    delete them in time.
    """
    path, torn, snapshot = from_first(run.ranks, lambda: _newest(run), "resuming")
    if path is None or snapshot is None:
        nothing = f"no checkpoint to resume from in {directory}: starting from the beginning"
        run.notes.append(Warned(step=0, epoch=0, message=nothing))
    else:
        run.restore(snapshot)
        run.resumed_from = path
        run.keeper.good = frozenset({snapshot.step})
        if run.keeper.mirror is not None:
            run.keeper.mirror.go_on(snapshot.step)
        run.notes.extend(otherwise.than_before(run, snapshot.state))
    for said in torn:
        message = f"passed over a torn checkpoint: {said}"
        run.notes.append(Warned(step=run.state.step, epoch=run.epoch, message=message))
    run.feed.itinerary.step = run.state.step
    run.feed.itinerary.evaluated = run.state.evaluated


def _newest(run: Run) -> tuple[Path | None, list[str], Snapshot | None]:
    """The newest checkpoint that verifies, what is wrong with newer ones, what it holds."""
    steps = checkpoint.steps(run.keeper.directory)
    most = tensors_of(run.model)
    path, snapshot, torn = checkpoint.newest_whole(run.keeper.directory, steps, most)
    said = [error.message for error in torn]
    if said and path is None:
        raise AutotrainError(
            f"{checkpoint.checkpoints(run.keeper.directory)}: none of {len(said)} checkpoints can "
            f"be read: {'; '.join(said[:3])}",
            "mend what is named, take them from a mirror (--resume --from URL), or begin anew: "
            "--fresh sets all of them aside",
        )
    if said:
        place = rewind.set_aside(run.keeper.directory, steps[: len(said)])
        said[-1] += f" (kept in {place})"
    return path, said, snapshot
