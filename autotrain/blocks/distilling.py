"""Distillation (Hinton 2015): a student learns from the labels and from a trained teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from autotrain.blocks.losses import inside
from autotrain.blocks.softcache import Known, Named, NamedCollate, SoftCache, refuse_unfit
from autotrain.blocks.teacher import load_teacher
from autotrain.errors import AutotrainError
from autotrain.task import Loss, Task, precise


class Posteriors(NamedTuple):
    """What student and teacher are compared by.

    `logits`: [batch, classes], or [batch, time, classes] with each sample's `frames` [batch]:
    padding counts nowhere. Every frame counts once; with `items` [batch] a sample's frames count
    as many times together: its tokens, where the hard loss is per token, as CTC's is.
    """

    logits: torch.Tensor
    frames: torch.Tensor | None = None
    items: torch.Tensor | None = None


Read = Callable[[Any, Any], Posteriors]
Figure = Callable[[nn.Module, Any], Any]


def distilled(
    task: Task,
    teacher: Callable[[], nn.Module],
    checkpoint: Path | str,
    *,
    alpha: float = 0.7,
    temperature: float = 3.0,
    read: Read | None = None,
    cache: Path | str | None = None,
) -> Task:
    """The task, trained on (1 - alpha) x its own loss + alpha x T^2 x KL(teacher || student).

    `teacher` builds the model whose weights `checkpoint` holds: a run's folder (its best), one of
    its checkpoints, a .safetensors file, or `stage:NAME` for an earlier stage of the plan. It is
    called as the task's loss calls the student, in eval mode, and is neither trained nor saved. T
    is the `temperature` of both softmaxes. `read`: (the model's output, batch) -> Posteriors; None:
    the output is logits [batch, classes], or (logits [batch, time, classes], frames [batch]). Parts
    that are logged: `hard` and `soft`. In validation the loss is the task's own.

    `cache`: a folder that keeps the teacher's answers by its weights' SHA-256 and each sample's
    index and content. They are computed in the first epoch; after that, and in later runs, no
    teacher is needed on the device. Refused where samples are augmented, or reordered by collate.
    Raises AutotrainError.
    """
    if not (0 <= alpha <= 1 and temperature > 0):
        raise AutotrainError(
            f"distilled: alpha {alpha:g} and temperature {temperature:g}",
            "alpha from 0 to 1, temperature above 0",
        )
    model, digest = load_teacher(teacher, Path(checkpoint))
    # What one that has not learned yet answers is for nobody to keep.
    kept = None if cache is None or not digest else _opened(task, Path(cache) / digest[:16])
    loss = _Distilling(task, model, alpha, temperature, read or _as_it_comes, kept)
    measure, confusion = _on_held(task.measure), _on_held(task.confusion)
    changed = replace(task, loss=loss.loss, measure=measure, confusion=confusion)
    if kept is None:
        return changed
    return replace(changed, train=Named(task.train), collate=NamedCollate(task.collate))


def _opened(task: Task, folder: Path) -> SoftCache:
    if getattr(task.train, "for_training_only", False):
        raise AutotrainError(
            "cache: training samples are augmented: each reading gives another",
            "leave `cache` out: the teacher then answers to what the student sees",
        )
    refuse_unfit(task.train, task.collate)
    return SoftCache(folder, len(task.train))


def soft_sum(student: Posteriors, answers: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 x KL(teacher || student), summed as Posteriors says; `answers` are teacher's logits.

    T^2 keeps the gradient's size where T softens the targets (Hinton 2015, section 2).
    """
    own = (precise(student.logits) / temperature).log_softmax(dim=-1)
    aim = (precise(answers) / temperature).log_softmax(dim=-1)
    each = functional.kl_div(own, aim, log_target=True, reduction="none").sum(dim=-1)
    if student.frames is not None:
        frames = student.frames.to(each.device)
        each = each.masked_fill(~inside(frames, each.shape[1]), 0.0).sum(dim=1)
        if student.items is not None:
            each = each / frames.clamp(min=1) * student.items.to(each.device)
    return temperature**2 * each.sum()


class _Seen:
    """A model that notes its calls; in all else it is the model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._calls: list[tuple[Any, Any, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._model(*args, **kwargs)
        self._calls.append((args, kwargs, output))
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def only_call(self) -> tuple[Any, Any, Any]:
        """Its arguments and its output. Raises AutotrainError unless there was one call."""
        if len(self._calls) != 1:
            raise AutotrainError(
                f"distilled: the task's loss called the model {len(self._calls)} times",
                "call it once, as model(...): the teacher is called with the same arguments",
            )
        return self._calls[0]


@dataclass
class _Distilling:
    task: Task
    teacher: nn.Module
    alpha: float
    temperature: float
    read: Read
    cache: SoftCache | None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def loss(self, model: nn.Module, batch: Any) -> Loss:
        names, batch = _taken_apart(batch)
        if not model.training:
            if self.cache is not None:
                self.cache.flush()
            return self.task.loss(model, batch)
        seen: Any = _Seen(model)
        hard = self.task.loss(seen, batch)
        args, kwargs, output = seen.only_call()
        student = _checked(self.read(output, batch))
        answers = self._known(names, student)
        if answers is None:
            answers = self._asked(args, kwargs, batch, student.logits.device)
            self._keep(names, answers, student)
        if answers.shape != student.logits.shape:
            raise AutotrainError(
                f"distilled: the teacher answers {list(answers.shape)}, the student "
                f"{list(student.logits.shape)}",
                "both need the same classes, and for sequences the same frames",
            )
        soft = soft_sum(student, answers, self.temperature)
        return Loss(
            total=(1 - self.alpha) * hard.total + self.alpha * soft,
            weight=hard.weight,
            parts={**hard.parts, "hard": hard.total, "soft": soft},
            mixes=hard.mixes,
        )

    @torch.no_grad()
    def _asked(self, args: Any, kwargs: Any, batch: Any, device: torch.device) -> torch.Tensor:
        if device != self.device:
            self.teacher, self.device = self.teacher.to(device), device
        return self.read(self.teacher(*args, **kwargs), batch).logits

    def _known(self, names: Any, student: Posteriors) -> torch.Tensor | None:
        if self.cache is None or names is None:
            return None
        # A trace sees a few samples: that these are known says nothing of the others.
        if isinstance(student.logits, FakeTensor) and not self.cache.complete:
            return None
        found = self.cache.get(names)
        if found is None:
            return None
        padded = nn.utils.rnn.pad_sequence(found, batch_first=True)
        missing = student.logits.shape[1] - padded.shape[1]
        if student.frames is not None and missing > 0:
            padded = functional.pad(padded, (0, 0, 0, missing))
        return padded.to(student.logits.device)

    def _keep(self, names: Any, answers: torch.Tensor, student: Posteriors) -> None:
        if self.cache is None or names is None or isinstance(answers, FakeTensor):
            return
        if len(names) != len(answers):
            raise AutotrainError(
                f"cache: {len(names)} samples in the batch, {len(answers)} rows of answers",
                "a collate that neither drops nor splits samples, or leave `cache` out",
            )
        rows = list(answers)
        if student.frames is not None:
            rows = [row[:n] for row, n in zip(rows, student.frames.tolist(), strict=True)]
        self.cache.put(names, rows)


def _on_held(figure: Figure | None) -> Figure | None:
    """A figure of (model, batch) that is given the batch without its samples' names."""
    if figure is None:
        return None
    return lambda model, batch: figure(model, _taken_apart(batch)[1])


def _taken_apart(batch: Any) -> tuple[Any, Any]:
    return (batch.names, batch.held) if isinstance(batch, Known) else (None, batch)


def _as_it_comes(output: Any, _batch: Any) -> Posteriors:
    if isinstance(output, torch.Tensor) and output.dim() == 2:
        return Posteriors(output)
    if isinstance(output, tuple) and [getattr(o, "ndim", None) for o in output] == [3, 1]:
        return Posteriors(*output)
    kind = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    raise AutotrainError(
        f"distilled: the model returns {kind}, neither [batch, classes] nor (logits, frames)",
        "read=lambda output, batch: Posteriors(logits, frames)",
    )


def _checked(student: Posteriors) -> Posteriors:
    if student.logits.dim() == 3 and student.frames is None:
        raise AutotrainError(
            f"distilled: logits {list(student.logits.shape)} without frames: padding would count",
            "read=lambda output, batch: Posteriors(logits, frames)",
        )
    return student
