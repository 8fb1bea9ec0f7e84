"""What a model costs: traced steps, trials, lengths."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, StrictBool

from autotrain.schema.base import (
    DeviceKind,
    Dtype,
    OptimizerName,
    Positive,
    PositiveFloat,
    Prediction,
    Record,
    Whole,
    WholeFloat,
)
from autotrain.schema.measured import NoiseTest, Race, RangeTest, Replay
from autotrain.schema.settings import ModelSection


class Work(NamedTuple):
    """`calls` equal calls of operators in a step: what each computes, and the bytes it touches.

    `kind` is what it costs like (`probe/trace/work.py` lists them), `dtype` what it computes in,
    `flops` its products' (0 for others), `bytes` all that it reads and writes. `shape` is
    (batches, rows, columns, inner) of a product, and of a convolution seen as one; (samples,
    channels, positions) of what works on pictures plane by plane.
    """

    kind: str
    dtype: str
    calls: float
    flops: float
    bytes: float
    shape: tuple[int, ...] = ()


class StepTrace(Record):
    """One training step's cost at one micro_batch and dtype, without its optimizer.

    All bytes are tensors alive at once, parameters and buffers included. `peak_bytes` is of
    a first micro-batch (no gradients yet), `accumulate_peak_bytes` of a later one (gradients
    already there), `evaluate_peak_bytes` of a forward pass without gradients.

    `untouched_bytes` of the first micro-batch's are allocated and never written to. `recomputes`:
    the backward pass computes activations again. `varies`: how large some tensors are follows from
    values, as of what a mask picks.

    `tape` is how storages were born and died, in order: n > 0 is the birth of one of n bytes,
    which gets the next number from 0; -1 - k is the death of number k. A workspace inside an
    operator is a birth and its death. `marks` are the places in it where the batch begins
    (parameters and buffers come before), the first micro-batch, the later one, and the
    evaluation; gradients die just before that.

    `work` is the first micro-batch's, `evaluate_work` the evaluation's.

    `length` is what the task's `length` says of the longest sample in the batch; 0: it is not
    known. `form` is how the model was run; nothing is compiled in a trace.
    """

    micro_batch: Positive
    length: WholeFloat = 0.0
    form: ModelSection = ModelSection()
    dtype: Dtype
    peak_bytes: Whole
    accumulate_peak_bytes: Whole
    evaluate_peak_bytes: Whole
    batch_bytes: Whole
    untouched_bytes: Whole = 0
    recomputes: bool = False
    varies: bool = False
    matmul_flops: WholeFloat
    convolution_flops: WholeFloat
    moved_bytes: WholeFloat
    ops: Whole
    work: tuple[Work, ...] = Field(default=(), repr=False)
    evaluate_work: tuple[Work, ...] = Field(default=(), repr=False)
    tape: tuple[int, ...] = Field(default=(), repr=False)
    marks: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __hash__(self) -> int:
        """Of a few fields: the tape may have thousands, and traces are looked up often."""
        return hash((self.micro_batch, self.length, self.dtype, self.peak_bytes, len(self.tape)))


class Trial(Record):
    """A few optimizer steps for real, in a child process, and what they took.

    The fields from `device` to `ema` are what was tried (`accum_steps` is 2 for any number
    above 1), the rest is what was measured. `base_bytes`: the process before its model was built;
    0 on a GPU. `device_peak_bytes`: RSS on a CPU, on a GPU what the driver lent to the process
    (None: it does not tell); after `out_of_memory` the most that was seen. `micro_seconds`:
    forward and backward of one micro-batch; `update_seconds`: clipping and the optimizer.

    A whole run is told in the same words (`of_run`). It knows no parts of a step: `step_seconds`
    is all of it but waiting for data, `micro_batches` how many it has on average. The last four
    are of a sample loaded with no worker beside it, an evaluation, a save, and what the first
    steps took over later ones.
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
    form: ModelSection = ModelSection()
    ema: StrictBool = False
    steps: Whole = 0
    base_bytes: Whole = 0
    device_peak_bytes: Whole | None = None
    reserved_peak_bytes: Whole | None = None
    tensor_peak_bytes: Whole | None = None
    micro_seconds: PositiveFloat | None = None
    update_seconds: PositiveFloat | None = None
    losses: tuple[float, ...] = ()
    of_run: StrictBool = False
    micro_batches: PositiveFloat | None = None
    step_seconds: PositiveFloat | None = None
    sample_seconds: WholeFloat | None = None
    evaluation_seconds: WholeFloat | None = None
    save_seconds: WholeFloat | None = None
    start_seconds: WholeFloat | None = None


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
    data it keeps in memory; 0: not measured. `follows`: so many stages ran before in its process,
    and `peak_before` is what the last of them takes of RAM, which malloc keeps.
    `trainable_sizes`: bytes of each trainable parameter, in the order an optimizer sees them;
    `trainable_dims` and `trainable_depths`: of each,
    how many dimensions it has, and how many levels below the output it is (`autotrain.depth`);
    `complex`: some are of complex numbers; `sparse`: the gradients of some are.
    `kept_bytes`: of samples that blocks keep once all were read, `kept_most`: of all workers'
    together; `cached_bytes`: of those that the dataset itself keeps, of each worker.
    `waiting_seconds`: of loading a sample, in which no core computed.
    `uneven`: samples differ in size, and no `length` tells how. `sizes`: in so many sizes come
    batches of them, as far as samples collated one by one tell; 0: in more than come again.
    `valid_sorted`: where lengths are known, those of validation samples are too, and these sorted.
    `steady`: samples are the same at each reading. `stacks`: torch's own collate makes tensors
    alone of such.
    `statistics_bytes`: what norms gather in training. `blocks`: parts that can be computed again in
    the backward pass; `block_bytes`: parameters of the largest that shares none with others, and
    `outside_bytes`: of what is in none such (None: not known); `convolutions`: layers that a
    memory format makes a difference to.

    `form` is how the model is to be run: `at` answers for it.
    """

    name: str
    parameters: Whole
    parameter_bytes: Whole
    trainable_bytes: Positive
    largest_parameter_bytes: Positive
    tensors: Positive
    trainable_sizes: tuple[int, ...] = Field(default=(), repr=False)
    trainable_dims: tuple[int, ...] = Field(default=(), repr=False)
    trainable_depths: tuple[int, ...] = Field(default=(), repr=False)
    buffer_bytes: Whole
    statistics_bytes: Whole = 0
    loaded_bytes: Whole = 0
    follows: Whole = 0
    peak_before: Prediction | None = None
    kept_bytes: Whole = 0
    kept_most: Whole = 0
    cached_bytes: Whole = 0
    blocks: Whole = 0
    block_bytes: Whole | None = None
    outside_bytes: Whole | None = None
    convolutions: Whole = 0
    form: ModelSection = ModelSection()
    batch_norm: bool = False
    complex: bool = False
    sparse: bool = False
    mixes: bool = False
    traced: Literal["fake", "concrete"]
    traces: tuple[StepTrace, ...] = Field(min_length=1)
    trials: tuple[Trial, ...] = ()
    range_test: RangeTest | None = Field(default=None, repr=False)
    noise: NoiseTest | None = Field(default=None, repr=False)
    race: Race | None = None
    replays: tuple[Replay, ...] = Field(default=(), repr=False)
    train_count: Positive
    valid_count: Whole
    lengths: LengthProfile | None = None
    sample_seconds: WholeFloat
    waiting_seconds: WholeFloat = 0.0
    sample_bytes: Whole
    valid_sorted: bool = False
    steady: bool = False
    stacks: bool = False
    uneven: bool = False
    sizes: Whole = 0
    monitor: str = "loss"
    better: Literal["lower", "higher"] = "lower"

    @property
    def differ(self) -> bool:
        """Whether samples, or what is picked of them, differ in size, and each step from others."""
        return self.lengths is not None or self.uneven or any(t.varies for t in self.traces)

    @property
    def recomputes(self) -> bool:
        """Whether the task's own code computes activations again, whatever the plan says."""
        return any(t.recomputes and not t.form.activation_checkpointing for t in self.traces)

    def at(self, dtype: Dtype) -> tuple[StepTrace, ...]:
        """The traces of one dtype on the longest samples, by micro_batch.

        tf32 allocates as fp32 does. `plan.lengths.at_length` gives those of other lengths.
        """
        same = "fp32" if dtype == "tf32" else dtype
        form = self.form
        own = [t for t in self.traces if t.dtype == same and (t.form is form or t.form == form)]
        longest = max((t.length for t in own), default=0.0)
        found = (t for t in own if t.length == longest)
        return tuple(sorted(found, key=lambda t: t.micro_batch))

    def run_as(self, form: ModelSection) -> ModelProfile:
        """The model run in that form: with the traces of it, compiled or not, and no others."""
        form = form.uncompiled()
        traces = tuple(t for t in self.traces if t.form == form)
        return self.model_copy(update={"form": form, "traces": traces})
