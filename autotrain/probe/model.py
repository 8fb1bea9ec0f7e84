"""Traces a task's training step: what it allocates and computes, before anything has run.

The step runs on fake tensors, which have shapes and no data; where an operator needs the
data (`.item()`, boolean masks), the same step runs once for real, on a small batch.
"""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autotrain.errors import AutotrainError
from autotrain.probe.task_data import load_samples, sample_count, valid_count
from autotrain.probe.trace.building import build, real_model
from autotrain.probe.trace.counter import Counter
from autotrain.schema import Device, Dtype, ModelProfile, StepTrace
from autotrain.task import Loss, Task, map_tensors, user_error

_AUTOCAST: dict[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TORCH_LOG = "torch._subclasses.fake_tensor"  # prints a traceback of what we say in one line


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

    @classmethod
    def open(cls, task: Task, path: Path, device: Device | None = None) -> ModelTracer:
        """Load a few samples (the longest, where `length` tells) and build the model.

        Raises AutotrainError, naming the task file's line, when either fails.
        """
        with _undisturbed():
            samples, seconds = load_samples(task, path)
            model, mode = build(task, path)
        return cls(task, path, samples, seconds, model, mode, device)

    def trace(self, micro_batch: int, dtype: Dtype = "fp32") -> StepTrace:
        """Trace one step at this micro_batch; `schema.StepTrace` says what is counted.

        Where a step turns out to need real data, earlier fake ones are traced again for real.
        Raises AutotrainError with the operator and the line of user code that failed.
        """
        with _undisturbed():
            if self.mode is not None:
                try:
                    return self._run(micro_batch, dtype, Counter(fake=True))
                except AutotrainError:
                    raise
                except Exception:
                    self.mode, self.model = None, real_model(self.task, self.path)
                earlier, self.traces = self.traces, []
                for each in earlier:
                    self._run_real(each.micro_batch, each.dtype)
            return self._run_real(micro_batch, dtype)

    def _run_real(self, micro_batch: int, dtype: Dtype) -> StepTrace:
        counter = Counter(fake=False)
        try:
            return self._run(micro_batch, dtype, counter)
        except AutotrainError:
            raise
        except Exception as error:
            raise user_error(self.path, error, f"in {counter.last_op}: ") from error

    def profile(self) -> ModelProfile:
        """The model's sizes, with every trace made so far."""
        parameters = list(self.model.parameters())
        trainable = [p for p in parameters if p.requires_grad]
        kinds = [type(m) for m in self.model.modules()]
        widest = max(t.batch_bytes / t.micro_batch for t in self.traces)
        return ModelProfile(
            name=type(self.model).__name__,
            parameters=sum(p.numel() for p in parameters),
            parameter_bytes=sum(p.nbytes for p in parameters),
            trainable_bytes=sum(p.nbytes for p in trainable),
            largest_parameter_bytes=max(p.nbytes for p in trainable),
            tensors=len(trainable),
            trainable_sizes=tuple(p.nbytes for p in trainable),
            buffer_bytes=sum(b.nbytes for b in self.model.buffers()),
            batch_norm=any(issubclass(k, nn.modules.batchnorm._BatchNorm) for k in kinds),
            mixes=self.mixes,
            traced="concrete" if self.mode is None else "fake",
            traces=tuple(self.traces),
            train_count=sample_count(self.task.train, "training", self.path),
            valid_count=valid_count(self.task, self.path),
            sample_seconds=self.sample_seconds,
            sample_bytes=int(widest),
            monitor=self.task.monitor,
            better=self.task.better,
        )

    def _run(self, micro_batch: int, dtype: Dtype, counter: Counter) -> StepTrace:
        batch = self._batch(micro_batch)
        with ExitStack() as stack:
            if self.mode is not None:
                stack.enter_context(self.mode)
                batch = map_tensors(self.mode.from_tensor, batch)
            stack.enter_context(counter)
            counter.hold(self.model.parameters())
            counter.hold(self.model.buffers())
            resident, holding = counter.now, len(counter.tape)
            map_tensors(lambda tensor: counter.hold([tensor]), batch)
            held = counter.now - resident
            first, later, evaluate = self._phases(batch, dtype, counter)
        counter.off()
        work = first.work
        made = StepTrace(
            micro_batch=micro_batch,
            dtype=dtype,
            peak_bytes=first.peak,
            accumulate_peak_bytes=later.peak,
            evaluate_peak_bytes=evaluate.peak,
            batch_bytes=held,
            matmul_flops=work.matmul_flops,
            convolution_flops=work.convolution_flops,
            moved_bytes=work.moved_bytes,
            ops=work.ops,
            tape=tuple(counter.tape),
            marks=(holding, first.start, later.start, evaluate.start),
        )
        self.traces.append(made)
        return made

    def _phases(self, batch: Any, dtype: Dtype, counter: Counter) -> tuple[_Phase, _Phase, _Phase]:
        self.model.zero_grad(set_to_none=True)
        self.model.train()
        first = _phase(counter, lambda: self._forward_backward(batch, dtype))
        later = _phase(counter, lambda: self._forward_backward(batch, dtype))
        self.model.zero_grad(set_to_none=True)
        self.model.eval()
        evaluate = _phase(counter, lambda: self._evaluate(batch, dtype))
        self.model.train()
        return first, later, evaluate

    def _forward_backward(self, batch: Any, dtype: Dtype) -> None:
        with _autocast(dtype):
            loss = self.task.loss(self.model, batch)
        self._check(loss)
        (loss.total / loss.weight).backward()  # type: ignore[no-untyped-call]
        self.mixes = loss.mixes

    def _evaluate(self, batch: Any, dtype: Dtype) -> None:
        with torch.no_grad(), _autocast(dtype):
            self.task.loss(self.model, batch)
            if self.task.measure is not None:
                # A figure is often computed on the host, which fake tensors cannot follow.
                with suppress(Exception) if self.mode is not None else ExitStack():
                    self.task.measure(self.model, batch)

    def _check(self, loss: Any) -> None:
        if not isinstance(loss, Loss):
            kind = "Tensor" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise AutotrainError(
                f"{self.path}: the loss returned {kind}, not autotrain.Loss",
                "return Loss(total=<sum over the items>, weight=<how many items>)",
            )
        if not isinstance(loss.total, torch.Tensor) or loss.total.numel() != 1:
            kind = str(getattr(loss.total, "shape", type(loss.total).__name__))
            raise AutotrainError(
                f"{self.path}: the loss's total is {kind}, not a tensor of one number",
                "sum the loss over its items, such as cross_entropy(..., reduction='sum')",
            )
        if not loss.total.requires_grad:
            raise AutotrainError(
                f"{self.path}: the loss has no gradient: no trainable parameter takes part in it",
                "look for .detach(), torch.no_grad() or frozen parameters between model and loss",
            )

    def _batch(self, micro_batch: int) -> Any:
        picked = [self.samples[i % len(self.samples)] for i in range(micro_batch)]
        collate = self.task.collate or torch.utils.data.default_collate
        try:
            # A copy: a collate may hand out the dataset's own tensors, which a step may change.
            return map_tensors(torch.clone, collate(picked))
        except Exception as error:
            raise user_error(self.path, error, "the collate refuses a batch: ") from error


@dataclass(frozen=True, slots=True)
class _Phase:
    start: int  # in the counter's tape
    peak: int
    work: Any


def _phase(counter: Counter, run: Callable[[], None]) -> _Phase:
    counter.restart()
    start = len(counter.tape)
    run()
    measured = _Phase(start, counter.peak, counter.work)
    gc.collect()
    return measured


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Tracing leaves the random generators as they were, and torch says no more than we do.

    What is there already is no garbage of ours: `gc.collect` after each phase passes over it.
    """
    python, numpy = random.getstate(), np.random.get_state()
    logger = logging.getLogger(_TORCH_LOG)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    gc.freeze()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _autocast(dtype: Dtype) -> Iterator[None]:
    target = _AUTOCAST.get(dtype)
    with torch.autocast("cpu", target, enabled=target is not None):
        yield
