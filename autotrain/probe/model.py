"""Traces a task's training step: what it allocates and computes, before anything has run.

The step runs on fake tensors, which have shapes and no data; where an operator needs the
data (`.item()`, boolean masks), the same step runs once for real, on a small batch.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autotrain.errors import AutotrainError
from autotrain.probe.tracing import Counter
from autotrain.schema import Dtype, ModelProfile, StepTrace
from autotrain.task import Loss, Task, map_tensors, user_error

_AUTOCAST: dict[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SAMPLES = 8
_LENGTHS_READ = 20_000


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
        samples, seconds = _load_samples(task, path)
        model, mode = _build(task, path)
        return cls(task, path, samples, seconds, model, mode)

    def trace(self, micro_batch: int, dtype: Dtype = "fp32") -> StepTrace:
        """Trace one step at this micro_batch; `schema.StepTrace` says what is counted.

        Raises AutotrainError with the operator and the line of user code that failed.
        """
        if self.mode is not None:
            try:
                return self._run(micro_batch, dtype, Counter(fake=True))
            except AutotrainError:
                raise
            except Exception:
                self.mode, self.model = None, _real_model(self.task, self.path)
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
            train_count=len(self.task.train),
            valid_count=0 if self.task.valid is None else len(self.task.valid),
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
            raise AutotrainError(
                f"{self.path}: the loss returned {type(loss).__name__}, not autotrain.Loss",
                "return Loss(total=<sum over the items>, weight=<how many items>)",
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
            return collate(picked)
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
def _autocast(dtype: Dtype) -> Iterator[None]:
    target = _AUTOCAST.get(dtype)
    with torch.autocast("cpu", target, enabled=target is not None):
        yield


def _load_samples(task: Task, path: Path) -> tuple[list[Any], float]:
    count = len(task.train)
    if count == 0:
        raise AutotrainError(
            f"{path}: the training dataset is empty", "check the data it was given"
        )
    try:
        chosen = _chosen(task, count)
        samples = [task.train[index] for index in chosen]
        seconds = []
        # Timed the second time: a dataset that keeps what it has loaded pays once.
        for index in chosen:
            started = time.perf_counter()
            task.train[index]
            seconds.append(time.perf_counter() - started)
    except AutotrainError:
        raise
    except Exception as error:
        raise user_error(path, error, "loading a sample: ") from error
    return samples, statistics.median(seconds)


def _chosen(task: Task, count: int) -> list[int]:
    """The longest samples, where a length is known; else samples spread over the dataset."""
    if task.length is None:
        return sorted({i * count // _SAMPLES for i in range(_SAMPLES)})
    stride = max(count // _LENGTHS_READ, 1)
    return sorted(range(0, count, stride), key=task.length, reverse=True)[:_SAMPLES]


def _build(task: Task, path: Path) -> tuple[nn.Module, FakeTensorMode]:
    """The model on fake tensors: built there, or built for real and turned fake."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            model = task.model()
    except Exception:
        model = _real_model(task, path)
    if not isinstance(model, nn.Module):
        raise AutotrainError(f"{path}: the model is {type(model).__name__}, not torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise AutotrainError(f"{path}: the model has no trainable parameter", "unfreeze a layer")
    return _as_fake(model, mode), mode


def _as_fake(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Give every parameter and buffer a fake of its own; a tensor used twice stays one.

    Those that are fake already are made anew: `copy.deepcopy` of a fake tensor (which
    nn.TransformerEncoder does to its layers) breaks the tie between it and its views.
    """
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                made.setdefault(id(tensor), _fake(tensor, mode))
                setattr(module, name, made[id(tensor)])
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
