"""Optimizer steps for real as the loop takes them, on the longest batch, for a trial of a plan."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy
import torch
from torch.amp.grad_scaler import GradScaler

from autotrain import freezing, prepare, sparse
from autotrain import optimizer as optimizers
from autotrain.averaging import Average
from autotrain.batches import tensors_in
from autotrain.device import Memory, Precision, out_of_memory
from autotrain.errors import AutotrainError
from autotrain.probe import reading
from autotrain.probe.child import Request
from autotrain.recompute import unlike
from autotrain.task import Task, map_tensors

_LENGTHS_READ = 20_000


class NotFiniteError(Exception):
    """A loss is NaN or infinite."""


@dataclass
class Stepper:
    """A plan's model, its optimizer and its batches. `doing` says what may fail just now."""

    request: Request
    task: Task
    device: torch.device
    doing: str = ""
    model: torch.nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    form: prepare.Prepared = field(init=False)
    memory: Memory | None = None
    average: Average | None = None
    losses: list[float] = field(default_factory=list)
    unread: dict[str, None] = field(default_factory=dict)  # in words, the samples left out
    load_seconds: list[float] = field(default_factory=list)
    micro_seconds: list[float] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan = self.request.plan
        self.precision = Precision(plan.precision.dtype, self.device)
        # From 1 on: the usual 65536 overflows at first, and a step passed over has no states.
        scaled = plan.precision.dtype == "fp16"
        self.scaler = GradScaler(self.device.type, init_scale=1.0, enabled=scaled)

    def build(self) -> None:
        """The model and its optimizer, as a run builds them; the rate is a first step's."""
        plan = self.request.plan
        self.doing = "building the model: "
        if self.device.type == "cuda":  # some drivers spill into RAM and say nothing
            free, total = torch.cuda.mem_get_info(self.device)
            torch.cuda.set_per_process_memory_fraction(min(free / total, 1.0), self.device)
        seed(plan.run.seed)
        self.model = self.task.model().to(self.device).train()
        freezing.freeze(self.model, plan.train.freeze)
        self.form = prepare.prepare(self.model, plan.model, varying=prepare.varies(self.task))
        self.optimizer = optimizers.build(plan.optimizer, self.model)
        if plan.train.ema_decay is not None:
            self.average = Average(self.model, plan.train.ema_decay)
        self.memory = Memory(self.device)
        warmup = plan.schedule.warmup_steps
        optimizers.set_rate(self.optimizer, plan.optimizer.lr / max(warmup, 1))

    def batch(self, dataset: Any, indices: list[int], of: str) -> Any:
        """Those samples as a batch on the device; others of them for what cannot be read."""
        self.doing = f"loading {of} samples: "
        found = reading.read(dataset, indices)
        starved = (each for each in found.failed.items() if out_of_memory(each[1]))
        if (fault := next(starved, found.hopeless)) is not None:
            index, error = fault
            self.doing = f"loading {of} sample {index}: "
            raise error
        self.unread |= {f"{of} {line}": None for line in found.told(Path(self.request.task_file))}
        rest = itertools.cycle(found.kept)
        samples = [found.samples[i] if i in found.samples else next(rest) for i in indices]
        self.doing = "the collate refuses a batch: "
        collate = self.task.collate or torch.utils.data.default_collate
        made = collate(samples)
        if self.device.type != "cpu":
            made = map_tensors(lambda tensor: tensor.to(self.device, non_blocking=True), made)
        return self.form.batch(made)

    def step(self, window: list[list[int]]) -> None:
        """One optimizer step, in the order in which the loop takes it.

        `window`: the samples of each micro-batch. Raises NotFiniteError.
        """
        for number, indices in enumerate(window):
            asked = self.now()
            batch = self.batch(self.task.train, indices, "training")
            begun = self.now()
            self.load_seconds.append(begun - asked)
            self.doing = "the loss: "
            with self.precision.autocast():
                loss = self.task.loss(self.model, batch)
            self.doing = "the gradients: "
            weight = float(loss.weight) or 1.0
            expected = weight * len(window)
            with unlike():
                torch.autograd.backward(self.scaler.scale(loss.total / expected))
            if number == 0 and len(window) > 1:
                self.form.hold(self.model.parameters())
            self.micro_seconds.append(self.now() - begun)
            value = float(loss.total.detach()) / weight
            if not math.isfinite(value):
                where = f"step {len(self.update_seconds) + 1}, micro-batch {number + 1}"
                raise NotFiniteError(f"the loss is {value} at {where}")
            self.losses.append(value)
        self.update()

    def update(self) -> None:
        """Unscale, clip, step, average, drop the gradients."""
        begun, clip = self.now(), self.request.plan.optimizer.clip_norm
        self.doing = "the optimizer: "
        self.scaler.unscale_(self.optimizer)
        if clip is not None:
            wanted = [p for p in self.model.parameters() if p.requires_grad]
            sparse.clip(wanted, sparse.values(wanted), clip)
        self.scaler.step(self.optimizer)
        if self.average is not None:
            self.average.update()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.update_seconds.append(self.now() - begun)

    @torch.no_grad()
    def validate(self, batch: Any) -> None:
        """Loss and measures in eval mode."""
        self.model.eval()
        self.doing = "the loss in validation: "
        with self.precision.autocast():
            self.task.loss(self.model, batch)
            self.doing = "the task's measure: "
            if self.task.measure is not None:
                self.task.measure(self.model, batch)
        self.model.train()

    def copy(self) -> list[torch.Tensor]:
        """Weights, buffers, averages and the optimizer's states in RAM, as before a save."""
        states = self.optimizer.state_dict()["state"].values()
        kept = [value for entries in states for value in entries.values()]
        kept += self.averaged()
        tensors = [t for t in (*self.model.state_dict().values(), *kept) if torch.is_tensor(t)]
        return [t.detach().to("cpu", copy=True) for t in tensors]

    def averaged(self) -> list[torch.Tensor]:
        """The averaged weights; none where the plan makes no average."""
        return [] if self.average is None else [*self.average.tensors().values()]

    def now(self) -> float:
        """Seconds, when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return perf_counter()


def longest_samples(task: Task, count: int, most: float = math.inf) -> list[int]:
    """Training samples for one micro-batch: the longest, or else spread over the dataset.

    All different where there are enough of them; none longer than `most`, if it can be.
    """
    total = len(task.train)
    if task.length is None:
        chosen = [i * total // count for i in range(count)] if total >= count else [*range(total)]
    else:
        stride = max(total // max(_LENGTHS_READ, count), 1)
        ordered = sorted(range(0, total, stride), key=task.length, reverse=True)
        fitting = [index for index in ordered if task.length(index) <= most]
        chosen = (fitting or ordered[-1:])[:count]
    return [chosen[i % len(chosen)] for i in range(count)]


def seed(value: int) -> None:
    """Every generator a task may draw from."""
    torch.manual_seed(value)
    random.seed(value)
    numpy.random.seed(value & 0xFFFFFFFF)


@torch.no_grad()
def insist_on_input(stepper: Stepper, batch: Any) -> None:
    """Raise AutotrainError for a model that answers the same whatever it is given.

    Its own input, and then the batch's first sample in place of every other: where the input
    differs and the output does not, nothing of it gets through. A model that cannot be asked
    this way (never called itself, more samples needed) is passed over.
    """
    stepper.model.eval()
    calls: list[tuple[Any, Any]] = []
    hook = stepper.model.register_forward_hook(lambda _, given, out: calls.append((given, out)))
    try:
        with stepper.precision.autocast():
            stepper.task.loss(stepper.model, batch)
            hook.remove()
            if len(calls) != 1:
                return
            given, out = calls[0]
            others = map_tensors(lambda t: t[:1].expand_as(t).clone() if t.dim() else t, given)
            same = stepper.model(*others)
    except Exception:
        return
    finally:
        hook.remove()
        stepper.model.train()
    outputs = tensors_in(out)
    if (
        outputs
        and not _equal(tensors_in(given), tensors_in(others))
        and _equal(outputs, tensors_in(same))
    ):
        raise AutotrainError(
            f"{stepper.request.task_file}: the model's output does not depend on its input",
            "look for what cuts them apart: .detach(), a constant, dead activations",
        )


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))
