"""The types that go one way through the house: profiles and a goal in, a plan out.

Bytes, seconds, hertz and FLOP/s throughout. Everything here is data: no torch, no I/O.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

PLAN_SCHEMA: Literal[1] = 1
PROFILE_SCHEMA: Literal[1] = 1

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
DeviceKind = Literal["cpu", "cuda", "rocm", "mps"]
# Torch serves both through `torch.cuda`: the same caching allocator, the same pinned memory.
CUDA_LIKE: tuple[DeviceKind, ...] = ("cuda", "rocm")
Kind = Literal["fixed", "rule", "measured", "user"]
OptimizerName = Literal[
    "adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop"
]
Scalar = bool | int | float | str

# Strict: in a file that people edit, `true` is no 1 and "8" is no 8. A whole number is a float.
Positive = Annotated[int, Field(ge=1, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, strict=True)]
WholeFloat = Annotated[float, Field(ge=0, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]


class Record(BaseModel):
    """Base of every type here: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


# --- what the machine is -------------------------------------------------------------------


class Rates(Record):
    """What a device can do, dense: FLOP/s by dtype, bytes per second, seconds per small op."""

    matmul: dict[Dtype, PositiveFloat]
    convolution: dict[Dtype, PositiveFloat] = {}
    bandwidth: PositiveFloat
    op_seconds: PositiveFloat
    source: Literal["measured", "datasheet", "assumed"]


class Neighbour(Record):
    """Another process that holds memory on a GPU."""

    pid: int
    name: str
    used_bytes: Whole


class Device(Record):
    """One thing that can train. For `cpu` the memory is the RAM this process may use."""

    kind: DeviceKind
    index: Whole = 0
    name: str
    total_bytes: Positive
    free_bytes: Whole
    compute_capability: str | None = None
    native_dtypes: tuple[Dtype, ...]
    rates: Rates
    neighbours: tuple[Neighbour, ...] = ()


class Cpu(Record):
    """`cores` is what this process may really use: affinity and cgroup quota, at least 1."""

    name: str
    cores: Positive
    logical: Positive
    features: tuple[str, ...] = ()


class Disk(Record):
    """Where runs go. `write_bandwidth` is bytes per second through an fsync, when measured."""

    path: str
    total_bytes: Whole
    free_bytes: Whole
    write_bandwidth: PositiveFloat | None = None


class HardwareProfile(Record):
    """A machine: probed here (`autotrain probe`) or from a datasheet (`profiles/*.toml`)."""

    schema_version: Literal[1] = Field(PROFILE_SCHEMA, alias="schema")
    name: str
    description: str = ""
    sources: tuple[str, ...] = ()
    system: str = "linux"
    cpu: Cpu
    ram_total_bytes: Positive
    ram_available_bytes: Whole
    disk: Disk
    devices: tuple[Device, ...] = Field(min_length=1)
    versions: dict[str, str] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def device(self, kind: DeviceKind, index: int = 0) -> Device | None:
        """The device of that kind and index, or None."""
        found = (d for d in self.devices if d.kind == kind and d.index == index)
        return next(found, None)


# --- what the data is ----------------------------------------------------------------------


class Percentiles(Record):
    """Of a per-sample quantity; `unit` says which (`frames`, `seconds`, `pixels`, ...)."""

    unit: str
    minimum: float
    p50: float
    p95: float
    maximum: float


class Fault(Record):
    """Something wrong with one file of the data, named."""

    path: str
    problem: str


class DatasetProfile(Record):
    """What a dataset holds. `sample_*` describe one training sample as the loader sees it."""

    kind: Literal["images", "speech", "features", "table", "task"]
    root: str | None = None
    took_for: str = ""
    count: Whole
    classes: dict[str, int] = {}
    bytes: Whole = 0
    length: Percentiles | None = None
    facts: dict[str, Scalar] = {}
    faults: tuple[Fault, ...] = ()
    fingerprint: str


# --- what the model costs ------------------------------------------------------------------


class StepTrace(Record):
    """One training step's cost at one micro_batch and dtype, without its optimizer.

    All bytes are tensors alive at once, parameters and buffers included. `peak_bytes` is of
    a first micro-batch (no gradients yet), `accumulate_peak_bytes` of a later one (gradients
    already there), `evaluate_peak_bytes` of a forward pass without gradients.

    `untouched_bytes` of the first micro-batch's are allocated and never written to.

    `tape` is how storages were born and died, in order: n > 0 is the birth of one of n bytes,
    which gets the next number from 0; -1 - k is the death of number k. A workspace inside an
    operator is a birth and its death. `marks` are the places in it where the batch begins
    (parameters and buffers come before), the first micro-batch, the later one, and the
    evaluation; gradients die just before that.

    `length` is what the task's `length` says of the longest sample in the batch; 0: it is not
    known.
    """

    micro_batch: Positive
    length: WholeFloat = 0.0
    dtype: Dtype
    peak_bytes: Whole
    accumulate_peak_bytes: Whole
    evaluate_peak_bytes: Whole
    batch_bytes: Whole
    untouched_bytes: Whole = 0
    matmul_flops: WholeFloat
    convolution_flops: WholeFloat
    moved_bytes: WholeFloat
    ops: Whole
    tape: tuple[int, ...] = Field((), repr=False)
    marks: tuple[int, int, int, int] = (0, 0, 0, 0)


class Trial(Record):
    """A few optimizer steps for real, in a child process, and what they took.

    The fields from `device` to `momentum` are what was tried (`accum_steps` is 2 for any number
    above 1), the rest is what was measured. `base_bytes`: the process before its model was built;
    0 on a GPU. `device_peak_bytes`: RSS on a CPU, on a GPU what the driver lent to the process
    (None: it does not tell); after `out_of_memory` the most that was seen. `micro_seconds`:
    forward and backward of one micro-batch; `update_seconds`: clipping and the optimizer.
    """

    outcome: Literal["ok", "out_of_memory", "timed_out", "failed", "not_finite"]
    message: str = ""
    hint: str = ""
    device: DeviceKind
    index: Whole = 0
    threads: Positive
    micro_batch: Positive
    accum_steps: Positive
    buckets: tuple[tuple[PositiveFloat, Positive], ...] = ()
    dtype: Dtype
    optimizer: OptimizerName
    implementation: str
    momentum: float | None = None
    steps: Whole = 0
    base_bytes: Whole = 0
    device_peak_bytes: Whole | None = None
    reserved_peak_bytes: Whole | None = None
    tensor_peak_bytes: Whole | None = None
    micro_seconds: PositiveFloat | None = None
    update_seconds: PositiveFloat | None = None
    losses: tuple[float, ...] = ()


class LengthProfile(Record):
    """What `Task.length` says of the training samples. `read` of `count` were asked for.

    `points` are lengths of samples, rising, at evenly spaced ranks from the shortest to the
    longest; each stands for as many samples as the next.
    """

    count: Positive
    read: Positive
    mean: PositiveFloat
    points: tuple[WholeFloat, ...] = Field(min_length=1, repr=False)

    @property
    def maximum(self) -> float:
        """Of those that were read."""
        return self.points[-1]


class ModelProfile(Record):
    """A model and its data as a training step sees them.

    `loaded_bytes`: what loading the task made the planning process grow by: its imports and the
    data it keeps in memory; 0: not measured. `trainable_sizes`: bytes of each trainable
    parameter, in the order an optimizer sees them.
    """

    name: str
    parameters: Whole
    parameter_bytes: Whole
    trainable_bytes: Positive
    largest_parameter_bytes: Positive
    tensors: Positive
    trainable_sizes: tuple[int, ...] = Field((), repr=False)
    buffer_bytes: Whole
    loaded_bytes: Whole = 0
    batch_norm: bool = False
    mixes: bool = False
    traced: Literal["fake", "concrete"]
    traces: tuple[StepTrace, ...] = Field(min_length=1)
    trials: tuple[Trial, ...] = ()
    train_count: Positive
    valid_count: Whole
    lengths: LengthProfile | None = None
    sample_seconds: WholeFloat
    sample_bytes: Whole
    monitor: str = "loss"
    better: Literal["lower", "higher"] = "lower"

    def at(self, dtype: Dtype) -> tuple[StepTrace, ...]:
        """The traces of one dtype on the longest samples, by micro_batch.

        tf32 allocates as fp32 does. `plan.lengths.at_length` gives those of other lengths.
        """
        same = "fp32" if dtype == "tf32" else dtype
        longest = max((t.length for t in self.traces if t.dtype == same), default=0.0)
        found = (t for t in self.traces if t.dtype == same and t.length == longest)
        return tuple(sorted(found, key=lambda t: t.micro_batch))


# --- what the user wants -------------------------------------------------------------------


class Sizes(Record):
    """Settings for datasets of up to `up_to` samples (None: any number)."""

    up_to: Positive | None = None
    devices: tuple[DeviceKind, ...] = ()
    settings: dict[str, Any]


class Recipe(Record):
    """Named settings with where they come from. Keys are plan keys."""

    name: str
    source: str
    settings: dict[str, Any] = {}
    sizes: tuple[Sizes, ...] = ()


class TaskSection(Record):
    """Which code and data. Exactly one of `template` and `file`."""

    template: str | None = None
    file: str | None = None
    sha256: str
    data: str | None = None
    options: dict[str, Scalar] = {}


class Goal(Record):
    """What the user wants, and what they fixed (`user`: plan key -> value)."""

    task: TaskSection
    recipes: tuple[Recipe, ...] = ()
    user: dict[str, Any] = {}
    name: str = "run"


# --- the plan ------------------------------------------------------------------------------


class Beside(Record):
    """Another rule's answer, shown beside ours, with why we do not use it."""

    name: str
    value: Any
    formula: str
    why_not: str


class Reason(Record):
    """Why a setting has its value. `formula` has its numbers filled in."""

    value: Any = None
    kind: Kind
    formula: str
    source: str
    limited_by: str = ""
    would_change: str = ""
    beside: tuple[Beside, ...] = ()


class Prediction(Record):
    """An interval: 95 % of measured cases are to fall between `low` and `high`."""

    low: WholeFloat
    expected: WholeFloat
    high: WholeFloat


class RunSection(Record):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    directory: str
    seed: Whole
    log_every_steps: Positive


class DeviceSection(Record):
    kind: DeviceKind
    index: Whole
    threads: Positive


class MemorySection(Record):
    share: Share
    budget_bytes: Positive


Bucket = tuple[PositiveFloat, Positive]


class BatchSection(Record):
    """`buckets`: (up to this length, micro_batch), rising; the last is `micro_batch`'s own.

    With buckets a step takes `target_items`, the sum of its samples' lengths, which is
    `global_batch` samples on average. Absent: every micro-batch has `micro_batch` samples.
    """

    micro_batch: Positive
    accum_steps: Positive
    world_size: Positive
    global_batch: Positive
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)] | None = None
    target_items: PositiveFloat | None = None


class PrecisionSection(Record):
    dtype: Dtype


class OptimizerSection(Record):
    name: OptimizerName
    lr: PositiveFloat
    weight_decay: WholeFloat
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] | None = None
    betas: tuple[Share, Share] | None = None
    implementation: Literal["fused", "foreach", "for-loop"]
    clip_norm: PositiveFloat | None = None


class ScheduleSection(Record):
    """Learning rate by step. A key that the named schedule does not use is left out."""

    name: Literal["constant", "cosine", "cosine_restarts", "plateau", "exponential", "inverse_sqrt"]
    warmup_steps: Whole
    min_lr: WholeFloat | None = None
    factor: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    patience: Whole | None = None
    period_steps: Positive | None = None


class TrainSection(Record):
    epochs: Positive


class EarlyStopSection(Record):
    """`patience` counts evaluations without an improvement of `min_delta`; absent: off."""

    patience: Positive | None = None
    min_delta: WholeFloat


class EvaluateSection(Record):
    every_epochs: Positive | None = None
    every_steps: Positive | None = None


class CheckpointSection(Record):
    every_epochs: Positive | None = None
    every_steps: Positive | None = None
    keep: Positive


class LoaderSection(Record):
    workers: Whole
    prefetch: Positive
    pin_memory: StrictBool
    start_method: Literal["fork", "spawn", "forkserver"]


# Of the training samples, where neither the task nor the plan says what is held out.
VALID_SHARE = 0.1


class DataSection(Record):
    """`valid_share` of the training samples is held out when the task brings no valid set."""

    valid_share: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None


class InputsSection(Record):
    """SHA-256 digests of what the plan was made from."""

    hardware: str
    dataset: str
    model: str


class PredictedSection(Record):
    tensor_peak_bytes: Prediction
    reserved_peak_bytes: Prediction
    device_peak_bytes: Prediction
    step_seconds: Prediction
    run_seconds: Prediction
    checkpoint_bytes: Prediction


class Plan(Record):
    """Every setting of a run, what it will take, and for every setting the reason."""

    schema_version: Literal[1] = Field(PLAN_SCHEMA, alias="schema")
    made_by: str
    recipe: str
    task: TaskSection
    run: RunSection
    device: DeviceSection
    memory: MemorySection
    batch: BatchSection
    precision: PrecisionSection
    optimizer: OptimizerSection
    schedule: ScheduleSection
    train: TrainSection
    early_stop: EarlyStopSection
    evaluate: EvaluateSection
    checkpoint: CheckpointSection
    loader: LoaderSection
    data: DataSection
    inputs: InputsSection
    predicted: PredictedSection
    notes: tuple[str, ...] = ()
    because: dict[str, dict[str, Reason]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


SETTING_SECTIONS = (
    "task",
    "run",
    "device",
    "memory",
    "batch",
    "precision",
    "optimizer",
    "schedule",
    "train",
    "early_stop",
    "evaluate",
    "checkpoint",
    "loader",
    "data",
)


def setting_types() -> dict[str, Any]:
    """Every settable plan key (`batch.micro_batch`) with its annotation, constraints included."""
    found: dict[str, Any] = {}
    for section in SETTING_SECTIONS:
        record = Plan.model_fields[section].annotation
        assert isinstance(record, type)
        assert issubclass(record, Record)
        for name, field in record.model_fields.items():
            constraints = tuple(field.metadata)
            found[f"{section}.{name}"] = (
                Annotated[field.annotation, *constraints] if constraints else field.annotation
            )
    return found
