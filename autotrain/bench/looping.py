"""The child process of `bench loop`: a plan's steps by autotrain's loop and by a bare one.

`python -m autotrain.bench.looping`: a LoopRequest on stdin, a Looped on stdout. The bare loop is
what one writes by hand: torch's DataLoader, the loss, backward, clipping, the optimizer, and
nothing that logs, saves, watches or heals.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader

from autotrain import optimizer as optimizers
from autotrain import prepare
from autotrain.batches import map_tensors
from autotrain.device import Precision, device_of, settings
from autotrain.events import Step
from autotrain.probe.child import Request
from autotrain.probe.trial import fault, serve
from autotrain.run.assemble import build_model
from autotrain.run.loading import data
from autotrain.run.loop import train
from autotrain.schema import Outcome, Plan, Positive, Record
from autotrain.task import Task, load_task

LEAST_ROUNDS, MOST_ROUNDS = 3, 40


class LoopRequest(Record):
    """Rounds of `stretches` x `every` steps by each loop, for about `seconds` together.

    A stretch is what lies between two looks at the clock; the first of a round does not count.
    """

    take: Request
    stretches: Positive
    every: Positive
    seconds: float


class Looped(Record):
    """Seconds of a step, one figure a round: by a bare loop, and by autotrain's.

    `waits`: the share of autotrain's step in which it waited for data.
    """

    outcome: Outcome
    message: str = ""
    hint: str = ""
    bare: tuple[float, ...] = ()
    ours: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()


def looped(request: LoopRequest) -> Iterator[Looped]:
    """What both took, whatever comes of it; more of it with each answer."""
    plan, path = _alike(request), Path(request.take.task_file)
    try:
        task = load_task(path, request.take.data, plan.task.options)
        bare: list[float] = []
        ours: list[float] = []
        waits: list[float] = []
        deadline = monotonic() + request.seconds
        for number in range(MOST_ROUNDS):
            if number >= LEAST_ROUNDS and monotonic() > deadline:
                break
            bare.append(_middle(_bare(plan, task, request)))
            points = _ours(plan, task, path, request)
            ours.append(_middle(_stretches([point.time for point in points], request.every)))
            waits.append(_middle([p.wait_seconds / p.step_seconds for p in points[1:]]))
            yield Looped(outcome="ok", bare=tuple(bare), ours=tuple(ours), waits=tuple(waits))
    except Exception as error:
        yield Looped.model_validate(fault(path, error, "training: "))


def _alike(request: LoopRequest) -> Plan:
    """The plan as both can carry it out: one size of batch, read each time, nothing due."""
    plan = request.take.plan
    steps = request.stretches * request.every
    never = {"every_epochs": 10**6, "every_steps": None}
    cut = plan.batch
    whole = cut.micro_batch * cut.accum_steps
    sections: dict[str, dict[str, Any]] = {
        "batch": {"buckets": None, "target_items": None, "global_batch": whole, "world_size": 1},
        "run": {"log_every_steps": request.every},
        "train": {"epochs": steps + 1, "ema_decay": None},
        "evaluate": never,
        "checkpoint": {**never, "mirror": None},
        "early_stop": {"patience": None},
        "loader": {"keep": None},
    }
    return plan.model_copy(
        update={key: getattr(plan, key).model_copy(update=new) for key, new in sections.items()}
    )


def _middle(stretches: list[float]) -> float:
    return sorted(stretches)[len(stretches) // 2]


def _stretches(clock: list[float], every: int) -> list[float]:
    """Seconds a step between two looks at the clock; those before the first warm up."""
    return [(after - before) / every for before, after in pairwise(clock)]


def _ours(plan: Plan, task: Task, path: Path, request: LoopRequest) -> list[Step]:
    """A log point after each stretch."""
    steps = request.stretches * request.every
    with tempfile.TemporaryDirectory() as folder:
        events = train(plan, task, Path(folder) / "run", task_file=path, max_steps=steps)
        return [event for event in events if isinstance(event, Step)]


def _bare(plan: Plan, task: Task, request: LoopRequest) -> list[float]:
    """The same steps, as a person would write them."""
    device, clip = device_of(plan.device), plan.optimizer.clip_norm
    with settings(plan):
        model = build_model(plan, task, device)
        form = prepare.prepare(model, plan.model, varying=prepare.varies(task))
        optimizer = optimizers.build(plan.optimizer, model)
        precision = Precision(plan.precision.dtype, device)
        scaler, accum = precision.scaler(), plan.batch.accum_steps
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        clock = []
        with closing(_batches(plan, task)) as batches:
            for number in range(1, request.stretches * request.every + 1):
                for _ in range(accum):
                    batch = form.batch(_on(device, next(batches)))
                    with precision.autocast():
                        loss = task.loss(model, batch)
                    torch.autograd.backward(scaler.scale(loss.total / loss.weight / accum))
                scaler.unscale_(optimizer)
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(wanted, clip)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                if number % request.every == 0:
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    clock.append(perf_counter())
    return _stretches(clock, request.every)


def _batches(plan: Plan, task: Task) -> Generator[Any, None, None]:
    """Micro-batches without end."""
    many = plan.loader.workers
    loader = DataLoader(
        data.split(task, plan).train,
        batch_size=plan.batch.micro_batch,
        shuffle=True,
        drop_last=len(data.split(task, plan).train) >= plan.batch.micro_batch,
        collate_fn=task.collate,
        num_workers=many,
        prefetch_factor=plan.loader.prefetch if many else None,
        persistent_workers=many > 0,
        pin_memory=plan.loader.pin_memory,
        multiprocessing_context=plan.loader.start_method if many else None,
    )
    while True:
        yield from loader


def _on(device: torch.device, batch: Any) -> Any:
    if device.type == "cpu":
        return batch
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


if __name__ == "__main__":
    serve(lambda line: looped(LoopRequest.model_validate_json(line)))
