"""A run in flight: its live parts, where it stands, and how it becomes a snapshot and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import Subset

from autotrain.device import Memory, Precision
from autotrain.errors import AutotrainError
from autotrain.events import Event, Warned
from autotrain.optimizer import set_rate
from autotrain.prepare import Prepared
from autotrain.run.bucketed import BucketedOrder
from autotrain.run.cadence import Cadence
from autotrain.run.checkpoint import Snapshot
from autotrain.run.data import Feed, Split
from autotrain.run.guard import Guard
from autotrain.run.keeper import Keeper
from autotrain.run.meter import Meter
from autotrain.run.schedule import Schedule
from autotrain.run.tensors import (
    all_finite,
    flatten_model,
    flatten_optimizer,
    restore_model,
    restore_optimizer,
)
from autotrain.schema import Dtype, Plan
from autotrain.task import Loss, Task


class NotFiniteError(AutotrainError):
    """A loss or a weight is NaN or infinite."""


class ScaleGoneError(AutotrainError):
    """Gradients overflow fp16 at every scale of the loss."""


@dataclass
class RunState:
    """Where a run stands, between two steps. `evaluated` is the step of the last evaluation.

    `weight` counts up to the last log point. `reference` is the figure that patience compares
    with: it moves by `min_delta` at least, `best` by anything. `bad_streak`: steps in a row that
    were not committed, up to the last log point; `rollbacks`: how often the run went back;
    `broken_evaluations`: those in a row whose loss was not finite.
    """

    step: int = 0
    samples: int = 0
    weight: float = 0.0
    evaluated: int = 0
    best: float | None = None
    best_step: int | None = None
    reference: float | None = None
    bad_evaluations: int = 0
    bad_streak: int = 0
    rollbacks: int = 0
    broken_evaluations: int = 0

    def judge(self, figure: float, better: str, min_delta: float) -> bool:
        """Take note of an evaluation's monitored figure; True if it is the best so far."""
        sign = 1.0 if better == "higher" else -1.0
        ahead = math.inf if self.reference is None else sign * (figure - self.reference)
        if math.isfinite(figure) and ahead > min_delta:
            self.reference, self.bad_evaluations = figure, 0
        else:
            self.bad_evaluations += 1
        best = self.best is None or sign * (figure - self.best) > 0
        if not (math.isfinite(figure) and best):
            return False
        self.best, self.best_step = figure, self.step
        return True


class Buffers:
    """A copy of the model's buffers as they were before a step (BatchNorm's statistics, say).

    A model that assigns a new tensor to a buffer is followed: what is kept is the place.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._places = [
            (module._buffers, name)
            for module in model.modules()
            for name, value in module._buffers.items()
            if value is not None
        ]
        self._kept: list[torch.Tensor] = []

    def _now(self) -> list[torch.Tensor]:
        return [value for owner, name in self._places if (value := owner[name]) is not None]

    def keep(self) -> None:
        """Copy them, into the same memory each time."""
        if not self._places:
            return
        now = self._now()
        with torch.no_grad():
            if [b.shape for b in now] == [b.shape for b in self._kept]:
                torch._foreach_copy_(self._kept, now)
            else:
                self._kept = [buffer.clone() for buffer in now]

    @torch.no_grad()
    def settle(self, bad: torch.Tensor) -> None:
        """Put them back where `bad` is 1, on the device: nothing is read."""
        if not self._places:
            return
        for now, kept in zip(self._now(), self._kept, strict=True):
            now.copy_(torch.where(bad.reshape(()) > 0, kept, now))

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back as they were kept."""
        for (owner, name), kept in zip(self._places, self._kept, strict=True):
            now = owner[name]
            if now is not None and now.shape == kept.shape:
                now.copy_(kept)
            else:
                owner[name] = kept.clone()


@dataclass
class Run:
    """All that the loop works with."""

    plan: Plan
    task: Task
    device: torch.device
    model: torch.nn.Module
    form: Prepared
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    precision: Precision
    schedule: Schedule
    cadence: Cadence
    feed: Feed
    keeper: Keeper
    buffers: Buffers
    memory: Memory
    guard: Guard
    parts: Split
    last: int
    state: RunState = field(default_factory=RunState)
    meter: Meter = field(default_factory=Meter)
    notes: list[Event] = field(default_factory=list)
    resumed_from: Path | None = None
    committing: bool = False
    mixes: bool = False
    step_seconds: float = 0.0
    # Of healing: where it was needed last and how often there, and how far the run went back.
    mended_at: tuple[int, int] | None = None
    tries: int = 0
    went_back_to: int | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Samples to train on, and held out."""
        return self.parts.train_count, self.parts.valid_count

    @property
    def epoch(self) -> int:
        """The epoch, counted from 1, of the last step taken."""
        return self.cadence.epoch(self.state.step)

    def loss(self, batch: Any) -> Loss:
        """The task's loss of a micro-batch. Raises AutotrainError where it is no Loss."""
        with self.precision.autocast():
            made = self.task.loss(self.model, batch)
        if not isinstance(made, Loss):
            raise AutotrainError(
                f"the task's loss returned {type(made).__name__}, not autotrain.Loss",
                "return Loss(total=the sum, weight=how many items it was summed over)",
            )
        self.mixes = made.mixes
        return made

    def set_precision(self, dtype: Dtype) -> None:
        """Compute in another precision from here on, with a loss scale of its own."""
        self.precision = Precision(dtype, self.device)
        self.scaler = self.precision.scaler()

    def forget_interval(self) -> None:
        """Nothing since the last log point counts."""
        self.meter = Meter()

    def news(self) -> Iterator[Event]:
        """What has turned out about how the model runs, each thing once."""
        while self.form.notes:
            note = self.form.notes.pop(0)
            yield Warned(step=self.state.step, epoch=self.epoch, message=note)

    def rewind(self) -> None:
        """Back to how it was before the step under way: no gradients, the buffers of before."""
        self.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()

    def fixed(self) -> dict[str, Any]:
        """What a resume may not change, as the plan spells it."""
        order = self.feed.itinerary.order
        bucketed = order if isinstance(order, BucketedOrder) else None
        return {
            "run.seed": self.plan.run.seed,
            "batch.global_batch": self.plan.batch.global_batch,
            "batch.buckets": [list(part) for part in bucketed.buckets] if bucketed else None,
            "batch.target_items": bucketed.target_items if bucketed else None,
            "optimizer.name": self.plan.optimizer.name,
            "training samples": self.counts[0],
            "bucketing by length": order.lengths is not None,
        }

    def snapshot(self) -> Snapshot:
        """A copy in RAM. Raises NotFiniteError rather than keep a poisoned model."""
        model = flatten_model(self.model)
        trained = {name for name, _ in self.model.named_parameters()} & model.tensors.keys()
        if not all_finite({name: model.tensors[name] for name in trained}):
            raise NotFiniteError(
                f"after step {self.state.step} a weight of the model is not finite",
                "a lower optimizer.lr, optimizer.clip_norm, or bf16 in place of fp16",
            )
        epoch, window = divmod(self.state.step, self.cadence.steps_per_epoch)
        state = {
            **asdict(self.state),
            "epoch": epoch,
            "window": window,
            "fixed": self.fixed(),
            "schedule": self.schedule.state(),
            "scaler": self.scaler.state_dict(),
            "meter": self.meter.state(),
            "guard": self.guard.state(),
            "model": self.plan.model.model_dump(),
        }
        return Snapshot(self.state.step, model, flatten_optimizer(self.optimizer), state)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot. Raises AutotrainError where it is of another run."""
        try:
            _refuse_changes(snapshot.state["fixed"], self.fixed())
            self.take_back(snapshot)
            self.state = RunState(**{name: snapshot.state[name] for name in asdict(RunState())})
            self.schedule.load(snapshot.state["schedule"])
            self.meter = Meter.from_state(snapshot.state["meter"])
            self.guard.load(snapshot.state["guard"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AutotrainError(
                f"the checkpoint of step {snapshot.step} lacks what a resume needs: {error!r}",
                "start a fresh run",
            ) from error
        set_rate(self.optimizer, self.schedule.at(self.state.step))

    def take_back(self, snapshot: Snapshot) -> None:
        """What was learned, as it was then; where the run stands stays."""
        restore_model(self.model, snapshot.model)
        restore_optimizer(self.optimizer, snapshot.optimizer)
        self.scaler.load_state_dict(snapshot.state["scaler"])

    def samples_of(self, step: int) -> list[int]:
        """The training samples that the step-th step learned from, as the task counts them."""
        window = self.feed.itinerary.order.window(step - 1)
        train = self.parts.train
        own = train.indices if type(train) is Subset else None
        return [own[i] if own is not None else i for part in window for i in part]


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [
        f"{key} = {before.get(key)} became {value}"
        for key, value in now.items()
        if before.get(key) != value
    ]
    if changed:
        raise AutotrainError(
            f"this run cannot go on: {'; '.join(changed)}",
            "change it back, or start a fresh run under another run.name",
        )
