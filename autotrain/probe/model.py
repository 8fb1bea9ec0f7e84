"""Traces a task's training step: what it allocates and computes, before anything has run.

The step runs on fake tensors, which have shapes and no data, but for integers, which keep theirs
(`trace/values.py`). Where the code reads a number that is not known, the step is traced with two
answers; where that changes what it takes, it runs for real, on a small batch.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotrain import freezing
from autotrain.errors import AutotrainError
from autotrain.freezing import Frozen
from autotrain.prepare import attention_in_parts, laid_out, run_as
from autotrain.probe.lengths import Lengths, check_valid_length, read_lengths
from autotrain.probe.limits import usable_memory
from autotrain.probe.task_data import collated, loaded, opened, sample_count, valid_count
from autotrain.probe.trace.as_cuda import Lens, autocast, seen_as
from autotrain.probe.trace.building import build, real_model
from autotrain.probe.trace.checks import check_loss, failure, read_here, watched
from autotrain.probe.trace.counter import Counter
from autotrain.probe.trace.phases import Phase, phase
from autotrain.probe.trace.program import Program, Recorder
from autotrain.probe.trace.quiet import undisturbed
from autotrain.probe.trace.scratch import Scratch, runs_here
from autotrain.probe.trace.sizes import sizes
from autotrain.probe.trace.values import Values
from autotrain.recompute import unlike
from autotrain.schema import Device, Dtype, ModelProfile, ModelSection, StepTrace
from autotrain.task import Task, map_tensors

_AUTOCAST: dict[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FIGURES = (
    "peak_bytes", "accumulate_peak_bytes", "evaluate_peak_bytes", "matmul_flops",
    "convolution_flops",
)  # fmt: skip
_NOTED = 2**16  # bytes of tensors from elsewhere that are worth a second trace


@dataclass
class ModelTracer:
    """A task opened for tracing; `trace` answers for any micro_batch and dtype.

    `device` is what the step is to run on; None is this machine's CPU. `mode` is None once
    fake tensors turned out not to do: then steps run for real.
    """

    task: Task
    path: Path
    samples: list[Any]
    sample_seconds: float
    model: nn.Module
    mode: FakeTensorMode | None
    device: Device | None = None
    mixes: bool = False
    traces: list[StepTrace] = field(default_factory=list)
    lens: Lens | None = None  # while a step runs: the device it is to look like
    outside: list[torch.Tensor] = field(default_factory=list)  # neither the model's nor the batch's
    lengths: Lengths | None = None
    length: float = 0.0  # of the longest sample in the batch under way; 0: not known
    form: ModelSection = field(default_factory=ModelSection)  # of the step under way
    shorter: dict[float, list[Any]] = field(default_factory=dict)
    scratch: Scratch = field(default_factory=Scratch)
    loaded_bytes: int = 0
    insist: bool = False
    programs: list[tuple[StepTrace, Program]] = field(default_factory=list, repr=False)
    traits: dict[str, Any] = field(default_factory=dict, repr=False)  # of its data
    first: list[Any] = field(default_factory=list, repr=False)  # what tells it from other data
    patterns: tuple[str, ...] = ()
    frozen: Frozen = field(default_factory=Frozen)

    @classmethod
    def open(
        cls, task: Task, path: Path, device: Device | None = None, *, insist: bool = False
    ) -> ModelTracer:
        """Load a few samples (the longest, where `length` tells) and build the model.

        `insist`: what has to run for real to be looked at does, whatever memory it takes.
        Raises AutotrainError, naming the task file's line, when either fails.
        """
        with undisturbed():
            check_valid_length(task, path, valid_count(task, path))
            lengths = read_lengths(task, path, sample_count(task.train, "training", path))
            data = opened(task, path, lengths)
            model, mode = build(task, path, insist=insist)
        return cls(
            task, path, data.samples, data.seconds, model, mode, device,
            lengths=lengths, insist=insist, traits=data.traits, first=data.first,
        )  # fmt: skip

    def freeze(self, patterns: tuple[str, ...]) -> None:
        """From here on, parameters of such names are not trained, and no others were frozen."""
        self.frozen.thaw()
        self.patterns, self.frozen = patterns, freezing.freeze(self.model, patterns)

    def trace(
        self,
        micro_batch: int,
        dtype: Dtype = "fp32",
        length: float = 0.0,
        form: ModelSection = ModelSection(),  # noqa: B008  # frozen
    ) -> StepTrace:
        """Trace one step at this micro_batch; `schema.StepTrace` says what is counted.

        Its samples are the longest that are up to `length` long; 0: the longest of all. `form`:
        how the model runs; it is not compiled here. Where a step turns out to need real data,
        earlier fake ones are traced again for real.
        Raises AutotrainError with the operator and the line of user code that failed.
        """
        with undisturbed():
            self._take_samples(length)
            form = self.form = form.uncompiled()
            if self.mode is not None:
                made = self._run_fake(micro_batch, dtype)
                if made is not None:
                    self.traces.append(made)
                    return made
                self.mode, self.model = None, real_model(self.task, self.path)
                self.frozen = freezing.freeze(self.model, self.patterns)
                self.outside, self.programs = [], []
                earlier, self.traces = self.traces, []
                for each in earlier:
                    self._take_samples(each.length)
                    self.form = each.form
                    self._run_real(each.micro_batch, each.dtype)
                self._take_samples(length)
                self.form = form
            return self._run_real(micro_batch, dtype)

    def _run_fake(self, micro_batch: int, dtype: Dtype) -> StepTrace | None:
        """The step on fake tensors; None where it needs its data and can have them.

        Numbers that the code reads out of unknown tensors are taken for 1 and then for 0: an
        answer that makes the code fail is not the one, and two that work must not differ.
        """
        assert self.mode is not None
        made: list[StepTrace] = []
        failed: AutotrainError | None = None
        for answer in (1, 0):
            values = Values(self.mode, answer)
            counter = Counter(values)
            try:
                made.append(self._run(micro_batch, dtype, counter))
            except AutotrainError:
                raise
            except Exception as error:
                failed = failure(error, self.path, counter)
            if not values.asked:
                break
        if made and all(getattr(made[0], f) == getattr(made[-1], f) for f in _FIGURES):
            return made[0]
        if self._too_large():
            why = failed.message if failed else read_here(values.where, self.path)
            raise AutotrainError(
                why, "if this is no error of the task's, --trial takes a real step all the same"
            )
        return None

    def _too_large(self) -> bool:
        """Whether a real step would take more memory than a look ahead should."""
        size = sum(p.nbytes for p in self.model.parameters())
        return not self.insist and 3 * size > usable_memory().available_bytes

    def _run_real(self, micro_batch: int, dtype: Dtype) -> StepTrace:
        counter = Counter()
        try:
            made = self._run(micro_batch, dtype, counter)
        except AutotrainError:
            raise
        except Exception as error:
            raise failure(error, self.path, counter) from error
        self.traces.append(made)
        return made

    def program(self, trace: StepTrace) -> Program | None:
        """What that step did, to be played again; None where that is not known."""
        return next((program for made, program in self.programs if made is trace), None)

    def profile(self) -> ModelProfile:
        """The model's sizes, with every trace made so far."""
        widest = max(t.batch_bytes / t.micro_batch for t in self.traces)
        return ModelProfile(
            **sizes(self.model),
            **self.traits,
            loaded_bytes=self.loaded_bytes,
            mixes=self.mixes,
            traced="concrete" if self.mode is None else "fake",
            traces=tuple(self.traces),
            lengths=self.lengths.profile() if self.lengths is not None else None,
            sample_seconds=self.sample_seconds,
            sample_bytes=int(widest),
            monitor=self.task.monitor,
            better=self.task.better,
        )

    def _run(self, micro_batch: int, dtype: Dtype, counter: Counter) -> StepTrace:
        """One step. What turns up in it from elsewhere, a teacher's weights, was there before."""
        made = self._run_once(micro_batch, dtype, counter)
        found = [tensor for stranger in counter.strangers if (tensor := stranger()) is not None]
        for tensor in found:
            if isinstance(tensor.grad, FakeTensor):
                tensor.grad = None
        if sum(tensor.nbytes for tensor in found) < _NOTED:
            return made
        self.outside += found
        return self._run_once(micro_batch, dtype, counter.again())

    def _run_once(self, micro_batch: int, dtype: Dtype, counter: Counter) -> StepTrace:
        batch = laid_out(self._batch(micro_batch), self.form)
        if self.mode is not None and runs_here(self.device):
            counter.calls, counter.recorder = [], Recorder()
        with ExitStack() as stack:
            if self.mode is not None:
                stack.enter_context(self.mode)
                self.lens = stack.enter_context(seen_as(self.device))
                counter.inside = counter.inside if self.lens is None else self.lens.inside
            stack.enter_context(run_as(self.model, self.form))
            stack.enter_context(attention_in_parts())
            if counter.values is not None:
                batch = map_tensors(counter.keep, batch)
            stack.enter_context(counter)
            counter.hold([*self.model.parameters(), *self.model.buffers()])
            counter.hold(self.outside, theirs=True)
            resident, holding = counter.now, len(counter.tape)
            map_tensors(lambda tensor: counter.hold([tensor]), batch)
            held = counter.now - resident
            first, later, evaluate = self._phases(batch, dtype, counter)
        counter.off()
        made = StepTrace(
            micro_batch=micro_batch,
            length=self.length,
            form=self.form,
            dtype=dtype,
            peak_bytes=first.peak,
            accumulate_peak_bytes=later.peak,
            evaluate_peak_bytes=evaluate.peak,
            batch_bytes=held,
            **counter.manners.told(),
            **first.told(),
            evaluate_work=evaluate.work.done(),
            tape=tuple(counter.tape),
            marks=(holding, first.start, later.start, evaluate.start),
        )
        if counter.calls is not None and counter.recorder is not None:
            made = self.scratch.added(made, counter.calls)
            self.programs.append((made, counter.recorder.program))
        return made

    def _phases(self, batch: Any, dtype: Dtype, counter: Counter) -> tuple[Phase, Phase, Phase]:
        self.model.zero_grad(set_to_none=True)
        self.model.train()
        with watched(self.model, counter) as watch:
            first = phase(counter, lambda: self._forward_backward(batch, dtype, counter))
        if self.mode is not None:
            watch.check(self.path)
        later = phase(counter, lambda: self._forward_backward(batch, dtype, counter))
        self.model.zero_grad(set_to_none=True)
        self.model.eval()
        evaluate = phase(counter, lambda: self._evaluate(batch, dtype, counter))
        self.model.train()
        return first, later, evaluate

    def _forward_backward(self, batch: Any, dtype: Dtype, counter: Counter) -> None:
        with autocast(self.lens, _AUTOCAST.get(dtype)):
            loss = self.task.loss(self.model, batch)
        check_loss(loss, self.path)
        with unlike(self.path), counter.manners.backward():
            (loss.total / loss.weight).backward()  # type: ignore[no-untyped-call]
        self.mixes = loss.mixes

    def _evaluate(self, batch: Any, dtype: Dtype, counter: Counter) -> None:
        with counter.validating(), autocast(self.lens, _AUTOCAST.get(dtype)):
            self.task.loss(self.model, batch)
            if self.task.measure is not None:
                # A figure is often computed on the host, which fake tensors cannot follow.
                with suppress(Exception) if self.mode is not None else ExitStack():
                    self.task.measure(self.model, batch)

    def _take_samples(self, length: float) -> None:
        """Make the next batch of samples of that length."""
        longest = self.lengths.longest if self.lengths is not None else 0.0
        self.length = length if 0 < length < longest else longest
        if self.lengths is not None and self.length < longest and length not in self.shorter:
            self.shorter[length] = loaded(self.task, self.path, self.lengths.up_to(length, 4)).kept

    def _batch(self, micro_batch: int) -> Any:
        samples = self.shorter.get(self.length, self.samples)
        return collated(self.task, self.path, samples, micro_batch)
