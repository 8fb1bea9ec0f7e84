"""A run in flight: its live parts, where it stands, and how it becomes a snapshot and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import Subset

from autotrain.averaging import Average
from autotrain.device import Memory, Precision, nvidia_uuid, rounding
from autotrain.errors import AutotrainError
from autotrain.events import Event, Warned
from autotrain.optimizer import set_rate
from autotrain.prepare import Prepared
from autotrain.run.buffers import Buffers
from autotrain.run.cadence import Cadence
from autotrain.run.healing.guard import Guard
from autotrain.run.keeping import shape
from autotrain.run.keeping.checkpoint import Snapshot, folder
from autotrain.run.keeping.copies import all_finite
from autotrain.run.keeping.handover import Taken
from autotrain.run.keeping.keeper import Keeper
from autotrain.run.keeping.tensors import (
    UNDIVIDED,
    Flat,
    Layout,
    flatten_average,
    flatten_model,
    flatten_optimizer,
    restore_model,
    restore_optimizer,
)
from autotrain.run.loading.bucketed import BucketedOrder
from autotrain.run.loading.data import Split
from autotrain.run.loading.feed import Feed
from autotrain.run.loading.itinerary import Itinerary
from autotrain.run.losses import loss_of
from autotrain.run.meter import Meter
from autotrain.run.sameness import refuse_changes, refuse_cut, refuse_other_names
from autotrain.run.schedule import Schedule
from autotrain.run.seeds import Draws
from autotrain.run.standing import RunState
from autotrain.schema import Dtype, Plan
from autotrain.sensors import Sensors
from autotrain.task import Loss, Task

if TYPE_CHECKING:
    from autotrain.run.processes.ranks import Ranks
    from autotrain.run.processes.shards import Shards


class NotFiniteError(AutotrainError):
    """A loss or a weight is NaN or infinite, since step `first` if that is known."""

    def __init__(self, message: str, hint: str = "", *, first: int | None = None) -> None:
        super().__init__(message, hint)
        self.first = first


class SpikesError(NotFiniteError):
    """Losses that are finite, and far above what was usual."""


class ScaleGoneError(AutotrainError):
    """Gradients overflow fp16 at every scale of the loss."""


@dataclass
class Run:
    """All that the loop works with."""

    plan: Plan
    task: Task
    device: torch.device
    model: torch.nn.Module
    form: Prepared
    parameters: list[torch.Tensor]
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
    draws: Draws
    parts: Split
    last: int
    average: Average | None = None
    ranks: Ranks | None = None
    shards: Shards | None = None
    sensors: Sensors = field(init=False)
    state: RunState = field(default_factory=RunState)
    meter: Meter = field(default_factory=Meter)
    notes: list[Event] = field(default_factory=list)
    resumed_from: Path | None = None
    taken: Taken | None = None
    given: str | None = None  # where the weights that it began with lay, if they were given
    committing: bool = False
    mixes: bool = False
    step_seconds: float = 0.0
    kept_best: int | None = None
    # Of healing: the furthest place where it was needed, and how often there.
    mended_at: tuple[int, int] = (-1, 0)
    tries: int = 0

    def __post_init__(self) -> None:
        """Where the device has sensors, they are opened."""
        self.sensors = Sensors(nvidia_uuid(self.device), self.plan.inputs.cores)
        # Gradients of one precision whose norm can be read for nothing.
        self.alike = self.device.type == "cpu" and len({p.dtype for p in self.parameters}) == 1

    @property
    def counts(self) -> tuple[int, int]:
        """Samples to train on, and held out."""
        return self.parts.train_count, self.parts.valid_count

    @property
    def layout(self) -> Layout:
        """How the model's tensors lie: whole, or divided among processes."""
        return UNDIVIDED if self.shards is None else self.shards

    @property
    def epoch(self) -> int:
        """The epoch, counted from 1, of the last step taken."""
        return self.cadence.epoch(self.state.step)

    def loss(self, batch: Any) -> Loss:
        """The task's loss of a micro-batch. Raises AutotrainError where it is no Loss."""
        made = loss_of(self.task, self.model, self.precision, batch)
        if made.mixes:
            refuse_cut(self.plan)
        self.mixes = made.mixes
        return made

    def set_precision(self, dtype: Dtype) -> None:
        """Compute in another precision from here on, with a loss scale of its own."""
        self.precision = Precision(dtype, self.device)
        self.scaler = self.precision.scaler()

    def go_on(self, way: Itinerary) -> None:
        """Go that way through the data from here on."""
        self.feed.section = self.plan.loader
        self.feed.restart(way)

    def news(self) -> Iterator[Event]:
        """What has turned out about how the model runs, each thing once."""
        while self.form.notes:
            note = self.form.notes.pop(0)
            yield Warned(step=self.state.step, epoch=self.epoch, message=note)
        while self.feed.news:
            yield self.feed.news.pop(0)

    def rewind(self) -> None:
        """Back to how it was before the step under way: no gradients, the buffers of before."""
        self.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()
        self.draws.forget()
        if self.scaler.is_enabled():  # one that has unscaled gradients refuses to do it again
            scale = self.scaler.state_dict()
            self.scaler = self.precision.scaler()
            self.scaler.load_state_dict(scale)

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
            "optimizer.decays": self.plan.optimizer.decays,
            "train.freeze": [*(self.plan.train.freeze or ())],
            "train.ema_decay": "off" if self.average is None else "on",
            "training samples": self.counts[0],
            "bucketing by length": order.lengths is not None,
        }

    def insist_finite(self, model: Mapping[str, torch.Tensor] | None = None) -> None:
        """Raise NotFiniteError where a weight is not: of the model, or of a copy of its state."""
        own = {n: self.layout.own(p) for n, p in self.model.named_parameters()}
        held = own if model is None else {n: model[n] for n in own.keys() & model.keys()}
        if not all_finite(held.values()):
            raise NotFiniteError(
                f"after step {self.state.step} a weight of the model is not finite",
                "a lower optimizer.lr, optimizer.clip_norm, or bf16 in place of fp16",
            )

    def snapshot(self) -> Snapshot:
        """A copy in RAM. Raises NotFiniteError rather than keep a poisoned model.

        Where the model is divided, all processes make it together, and rank 0 alone has it.
        """
        if self.shards is None or self.ranks is None:
            model = flatten_model(self.model)
            self.insist_finite(model.tensors)
            return self._snapshot(model, UNDIVIDED)
        with self.ranks.lock.section("saving"):
            self.insist_finite()
            return self._snapshot(flatten_model(self.model, self.shards), self.shards)

    def _snapshot(self, model: Flat, layout: Layout) -> Snapshot:
        epoch, window = divmod(self.state.step, self.cadence.steps_per_epoch)
        state = {
            **self.state.copied(),
            "epoch": epoch,
            "window": window,
            "fixed": self.fixed(),
            "schedule": self.schedule.state(),
            "scaler": self.scaler.state_dict(),
            "meter": self.meter.state(),
            "guard": self.guard.state(),
            "draws": self.draws.state(),
            "bad_samples": self.feed.aside.state(),
            "model": self.plan.model.model_dump(),
            "given": self.given,
            "rounding": rounding(self.plan, self.device),
            "facts": self.task.facts,
            "averaged": 0 if self.average is None else self.average.updates,
        }
        optimizer = flatten_optimizer(self.optimizer, self.parameters, layout)
        kept = self.average
        average = None if kept is None else flatten_average(kept, model, layout)
        return Snapshot(self.state.step, model, optimizer, state, average)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot. Raises AutotrainError where it is of another run."""
        name = folder(Path(), snapshot.step).name
        try:
            stands, kept = shape.kept(snapshot.state)
            refuse_changes(kept["fixed"], self.fixed())
            refuse_other_names(kept.get("facts"), self.task.facts)
            self.take_back(snapshot)
            self.schedule.load(kept["schedule"])
            self.meter = Meter.from_state(kept["meter"])
            self.guard.load(kept["guard"])
            self.draws.load(kept["draws"])
            self.feed.aside.load(kept["bad_samples"])
        except AutotrainError as error:
            raise AutotrainError(f"{name}: {error.message}", error.hint) from error
        except (KeyError, TypeError, ValueError) as error:
            raise AutotrainError(
                f"{name}/state.json: lacks what a resume needs: {error}",
                "an older one with --resume --from STEP, or start a fresh run",
            ) from error
        self.state, self.kept_best, self.given = stands, stands.best_step, kept.get("given")
        set_rate(self.optimizer, self.schedule.at(self.state.step))

    def take_back(self, snapshot: Snapshot) -> None:
        """What was learned, as it was then; where the run stands stays."""
        layout, kept = self.layout, self.average
        restore_model(self.model, snapshot.model, layout)
        restore_optimizer(self.optimizer, self.parameters, snapshot.optimizer, layout)
        if kept is not None and snapshot.average is not None:
            whole = snapshot.average.tensors
            own = zip(kept.names, kept.live, strict=True)
            parts = {name: layout.part(whole[name], live) for name, live in own}
            kept.load(parts, snapshot.state["averaged"])
        if snapshot.state["scaler"]:  # none was needed in another precision
            self.scaler.load_state_dict(snapshot.state["scaler"])

    def samples_of(self, step: int) -> list[int]:
        """The training samples that the step-th step learned from, as the task counts them."""
        window = self.feed.itinerary.order.window(step - 1)
        train = self.parts.train
        own = train.indices if type(train) is Subset else None
        return [own[i] if own is not None else i for part in window for i in part]
