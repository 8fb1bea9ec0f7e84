"""Traces a task's training step: what it allocates and computes, before anything has run.

The step runs on fake tensors, which have shapes and no data; where an operator needs the
data (`.item()`, boolean masks), the same step runs once for real, on a small batch.
"""

from __future__ import annotations

import copy
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
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotrain.errors import AutotrainError
from autotrain.probe.task_data import load_samples, sample_count, valid_count
from autotrain.probe.tracing import Counter
from autotrain.schema import Dtype, ModelProfile, StepTrace
from autotrain.task import Loss, Task, map_tensors, user_error

_AUTOCAST: dict[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TORCH_LOG = "torch._subclasses.fake_tensor"  # prints a traceback of what we say in one line


@dataclass
class ModelTracer:
    """A task opened for tracing; `trace` answers for any micro_batch and dtype.

    `mode` is None once fake tensors turned out not to do: then steps run for real.
    """

    task: Task
    path: Path
    samples: list[Any]
    sample_seconds: float
    model: nn.Module
    mode: FakeTensorMode | None
    mixes: bool = False
    traces: list[StepTrace] = field(default_factory=list)

    @classmethod
    def open(cls, task: Task, path: Path) -> ModelTracer:
        """Load a few samples (the longest, where `length` tells) and build the model.

        Raises AutotrainError, naming the task file's line, when either fails.
        """
        with _undisturbed():
            samples, seconds = load_samples(task, path)
            model, mode = _build(task, path)
        return cls(task, path, samples, seconds, model, mode)

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
                    self.mode, self.model = None, _real_model(self.task, self.path)
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
            resident = counter.now
            map_tensors(lambda tensor: counter.hold([tensor]), batch)
            held = counter.now - resident
            first, later, evaluate = self._phases(batch, dtype, counter)
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
    peak: int
    work: Any


def _phase(counter: Counter, run: Callable[[], None]) -> _Phase:
    counter.restart()
    run()
    measured = _Phase(counter.peak, counter.work)
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


def _build(task: Task, path: Path) -> tuple[nn.Module, FakeTensorMode]:
    """The model on fake tensors: built there, or built for real and turned fake."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            model = task.model()
    except Exception:
        model = _real_model(task, path)
    if not isinstance(model, nn.Module):
        raise AutotrainError(
            f"{path}: the model is {type(model).__name__}, not torch.nn.Module",
            "return a new model from Task(model=...)",
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise AutotrainError(f"{path}: the model has no trainable parameter", "unfreeze a layer")
    return _as_fake(model, mode), mode


def _as_fake(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Give every parameter and buffer a fake of its own; a tensor used twice stays one.

    Those that are fake already are made anew: `copy.deepcopy` of a fake tensor (which
    nn.TransformerEncoder does to its layers) breaks the tie between it and its views.
    """
    model = _apart(model, mode)
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                made.setdefault(id(tensor), _fake(tensor, mode))
                setattr(module, name, made[id(tensor)])
    return model


def _apart(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A model of real tensors may be the user's own object: a copy, its tensors fake."""
    real = [t for t in (*model.parameters(), *model.buffers()) if not isinstance(t, FakeTensor)]
    if not real:
        return model
    try:
        return copy.deepcopy(model, {id(tensor): _fake(tensor, mode) for tensor in real})
    except Exception:  # it holds something that cannot be copied
        return model


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with mode:
        new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(new, requires_grad=tensor.requires_grad)
    return new


def _real_model(task: Task, path: Path) -> nn.Module:
    try:
        return task.model()
    except AutotrainError:
        raise
    except Exception as error:
        raise user_error(path, error, "building the model: ") from error
