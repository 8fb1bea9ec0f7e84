"""The sections of a plan that a user may set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool

from autotrain.schema.base import (
    DeviceKind,
    Dtype,
    OptimizerName,
    Positive,
    PositiveBytes,
    PositiveFloat,
    Record,
    Share,
    Whole,
    WholeFloat,
)
from autotrain.schema.machine import InterruptionHours


class RunSection(Record):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    directory: str
    seed: Whole
    log_every_steps: Positive


class DeviceSection(Record):
    """Of a CPU: `kernels` that oneDNN keeps at most (absent: as many as it does by itself), and
    whether malloc keeps the memory of freed tensors (absent: see `ModelSection.keeps_freed`).
    """

    kind: DeviceKind
    index: Annotated[Whole, Field(lt=1024)]
    threads: Annotated[Positive, Field(le=1024)]
    kernels: Annotated[Positive, Field(le=1 << 16)] | None = None
    keep_freed: StrictBool | None = None


class MemorySection(Record):
    share: Share
    budget_bytes: PositiveBytes


Bucket = tuple[PositiveFloat, Positive]


class BatchSection(Record):
    """`buckets`: (up to this length, micro_batch), rising; the last is `micro_batch`'s own.

    With buckets a step takes `target_items`, the sum of its samples' lengths, which is
    `global_batch` samples on average. Absent: every micro-batch has `micro_batch` samples.
    `split`: each micro-batch is taken in so many parts; set where memory ran out.
    """

    micro_batch: Positive
    accum_steps: Positive
    world_size: Positive
    global_batch: Positive
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)] | None = None
    target_items: PositiveFloat | None = None
    split: Positive | None = None


class ParallelSection(Record):
    """How several processes train one model. `strategy`: each has all of it (`ddp`), or its part
    of parameters, gradients and optimizer states (`shard`).

    `reduce`: gradients of a divided model are added up after the `last` micro-batch of a step,
    until when each process has them whole, or after `each`.
    """

    strategy: Literal["ddp", "shard"] = "ddp"
    reduce: Literal["last", "each"] = "last"


MemoryFormat = Literal["contiguous", "channels_last"]


class ModelSection(Record):
    """How the task's model is run. `activation_checkpointing`: each repeated block keeps its
    input alone and is computed again in the backward pass. `cuda_graphs`: what was compiled is
    recorded, and a GPU launches all of it at once.
    """

    memory_format: MemoryFormat = "contiguous"
    compile: StrictBool = False
    cuda_graphs: StrictBool = False
    activation_checkpointing: StrictBool = False

    def uncompiled(self) -> ModelSection:
        """The same form as it is traced: nothing is compiled, nothing recorded."""
        return self.model_copy(update={"compile": False, "cuda_graphs": False})

    def keeps_freed(self, asked: bool | None) -> bool:
        """Whether malloc keeps what a step frees, where `device.keep_freed` is `asked`."""
        return not self.activation_checkpointing if asked is None else asked


class PrecisionSection(Record):
    dtype: Dtype


# What is kept of a running mean at each step.
Kept = Annotated[float, Field(ge=0, lt=1, strict=True)]


class OptimizerSection(Record):
    """`decays`: what weight decay is for; `matrices` are parameters of two and more dimensions.

    `layer_decay`: of the rate, what is left at each level further from the output; absent: all.
    """

    name: OptimizerName
    lr: PositiveFloat
    weight_decay: WholeFloat
    momentum: Kept | None = None
    betas: tuple[Kept, Kept] | None = None
    eps: PositiveFloat | None = None
    implementation: Literal["fused", "foreach", "for-loop"]
    clip_norm: PositiveFloat | None = None
    decays: Literal["all", "matrices"] = "all"
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None


class ScheduleSection(Record):
    """Learning rate by step. A key that the named schedule does not use is left out."""

    name: Literal["constant", "cosine", "cosine_restarts", "plateau", "exponential", "inverse_sqrt"]
    warmup_steps: Whole
    min_lr: WholeFloat | None = None
    factor: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    patience: Whole | None = None
    period_steps: Positive | None = None


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)
]


class TrainSection(Record):
    """`within_seconds` and `spend_dollars`: what the run may take; `epochs` follows from them.
    `price_per_hour`: dollars for an hour of the machine.

    `ema_decay`: what an average of the weights keeps of itself at each step; absent: none is made.
    `freeze`: patterns over names of parameters that are not trained; absent: all are.
    """

    epochs: Positive
    within_seconds: PositiveFloat | None = None
    spend_dollars: PositiveFloat | None = None
    price_per_hour: WholeFloat | None = None
    ema_decay: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    freeze: Patterns | None = None


class EarlyStopSection(Record):
    """`patience` counts evaluations without an improvement of `min_delta`; absent: off."""

    patience: Positive | None = None
    min_delta: WholeFloat


class EvaluateSection(Record):
    every_epochs: Positive | None = None
    every_steps: Positive | None = None


class CheckpointSection(Record):
    """`interruption_hours`: mean time between interruptions, absent: none is expected.
    `at_stake_minutes`: most work between two saves, absent: no limit.
    `background`: training goes on while they are written, from a copy in RAM. `grace_seconds`:
    from SIGTERM to SIGKILL where this runs, absent: not known. `mirror`: a path or a URL where
    copies of checkpoints go, absent: nowhere.
    """

    interruption_hours: InterruptionHours | None = None
    at_stake_minutes: PositiveFloat | None = None
    every_epochs: Positive | None = None
    every_steps: Positive | None = None
    keep: Positive
    background: StrictBool = False
    grace_seconds: PositiveFloat | None = None
    mirror: str | None = Field(default=None, min_length=1, max_length=1000)


class LoaderSection(Record):
    """`timeout_seconds`: a worker at one sample for so long counts as hung; absent: never.
    `keep`: samples stay in RAM, or stacked on the device, once read, if they turn out to be the
    same at every reading.
    """

    workers: Annotated[Whole, Field(le=256)]
    prefetch: Annotated[Positive, Field(le=1024)]
    pin_memory: StrictBool
    start_method: Literal["fork", "spawn", "forkserver"]
    timeout_seconds: PositiveFloat | None = None
    keep: Literal["ram", "device"] | None = None


class HealSection(Record):
    """What a run mends by itself. `spike_score`: a step whose loss lies so many robust standard
    deviations above those before it is not committed; absent: only NaN and infinity are not.
    `rollbacks`: how often a run may go back to a checkpoint. `bad_samples`: the share of the
    samples that may fail to load and be put aside.
    """

    spike_score: PositiveFloat | None = None
    rollbacks: Whole = 3
    bad_samples: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.01


class Amendment(Record):
    """What a run changed in its own plan after `step` steps, and why."""

    step: Whole
    key: str
    before: Any = None
    after: Any = None
    why: str


# Of the training samples, where neither the task nor the plan says what is held out.
VALID_SHARE = 0.1


class DataSection(Record):
    """`valid_share` of the training samples is held out when the task brings no valid set."""

    valid_share: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
