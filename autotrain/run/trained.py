"""What a run has learned, from one of its checkpoints: to be evaluated, asked, or exported.

    trained = load(plan, task, path, task_file=file, split="valid", folder=folder)
    figures = evaluate(trained, stop)

The model is built, laid out and fed as in the run itself, so that evaluating a checkpoint gives, on
a CPU to the bit, what the run said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from autotrain import prepare
from autotrain.device import Precision, device_of
from autotrain.errors import AutotrainError
from autotrain.prepare import Prepared
from autotrain.run.assemble import build_model
from autotrain.run.cadence import Cadence
from autotrain.run.keeping import checkpoint, handover, rewind, shape
from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.run.keeping.tensors import restore_model, tensors_of
from autotrain.run.loading import data
from autotrain.run.loading.aside import Aside
from autotrain.run.loading.feed import Feed
from autotrain.run.loading.itinerary import Itinerary, Request, ordered
from autotrain.run.loading.source import Source
from autotrain.run.losses import loss_of
from autotrain.schema import ModelSection, Plan, PrecisionSection
from autotrain.task import Loss, Task

SplitName = Literal["valid", "test", "train"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True)
class Trained:
    """A model with the weights of a checkpoint: the averaged ones where the run averages.

    `weights_sha256`: of the checkpoint's file that they are in. `feed` hands out the samples of one
    `split`, `count` of them, once and in order; None: samples that the task invented.
    """

    plan: Plan
    task: Task
    device: torch.device
    model: torch.nn.Module
    form: Prepared
    precision: Precision
    feed: Feed
    split: SplitName | None
    count: int
    step: int
    averaged: bool
    weights_sha256: str

    def loss(self, batch: Any) -> Loss:
        """The task's loss of a micro-batch. Raises AutotrainError where it is no Loss."""
        return loss_of(self.task, self.model, self.precision, batch)

    def batch(self, indices: Sequence[int]) -> Any:
        """Samples of the split as the model takes them. Raises AutotrainError, naming a bad one."""
        made = self.feed.source.made(Request(None, indices), [0])
        if made.fault is not None or made.bad or made.batch is None:
            why = made.fault.error if made.fault else made.bad[0].error
            raise AutotrainError(
                f"samples {[*indices]} of {self.split or 'the invented ones'}: {why}"
            )
        return self.form.batch(self.feed.moved(made.batch))


def checkpoint_of(directory: Path, which: str) -> Path:
    """The verified checkpoint that `best`, `latest` or `step-1200` means.

    A run that was never evaluated has no best one: its latest is meant. Raises AutotrainError.
    """
    if which in ("best", "latest"):
        return handover.source(directory, which)
    step = rewind.named(directory, which, flag="--checkpoint")
    return checkpoint.folder(directory, step)


def facts_of(path: Path) -> dict[str, Any] | None:
    """What the checkpoint `path` says of the data; None where its task tells nothing of them.

    Raises AutotrainError where it cannot be read.
    """
    found = checkpoint.state_of(path)["run"].get("facts")
    return found if isinstance(found, dict) else None


def load(
    plan: Plan, task: Task, path: Path, *, task_file: Path, folder: Path,
    split: SplitName | None = "valid", kept: bool = False,
) -> Trained:  # fmt: skip
    """The model of the checkpoint `path`, in eval mode. `folder`: where stacks of a loader that
    hangs are written. `kept`: the task was made of what the checkpoint says of the data, and has
    the samples of `split` alone. Raises AutotrainError.
    """
    device = device_of(plan.device)
    model = build_model(plan, task, device)
    snapshot = checkpoint.load(path, tensors_of(model))
    averaged = snapshot.average is not None
    form = prepare.prepare(model, plan.model, varying=prepare.varies(task))
    parts = _alone(task, plan, split) if kept else _with(data.split(task, plan), task, split)
    feed = _feed(plan, parts, task, model, task_file, folder)
    if split == "valid" or not (split or kept):
        feed.aside.load(each for each in _known_bad(snapshot) if each[0])
    return Trained(
        plan=plan,
        task=task,
        device=device,
        model=_restored(model, snapshot, path),
        form=form,
        precision=Precision(plan.precision.dtype, device),
        feed=feed,
        split=split,
        count=parts.valid_count,
        step=snapshot.step,
        averaged=averaged,
        weights_sha256=handover.file_sha256(
            path, checkpoint.AVERAGE if averaged else checkpoint.MODEL
        ),
    )


def plainly(plan: Plan) -> Plan:
    """The plan with its model as it was written: fp32, nothing compiled or laid out otherwise."""
    changed = {"model": ModelSection(), "precision": PrecisionSection(dtype="fp32")}
    return plan.model_copy(update=changed)


def _restored(model: torch.nn.Module, snapshot: Snapshot, path: Path) -> torch.nn.Module:
    try:
        restore_model(model, snapshot.average or snapshot.model)
    except AutotrainError as error:
        hint = "the task's code or options have changed since this was trained"
        raise AutotrainError(f"{path}: {error.message}", hint) from None
    return model.eval()


def _known_bad(snapshot: Snapshot) -> list[Sequence[Any]]:
    """The samples that the run had put aside by then."""
    try:
        return [*shape.kept(snapshot.state)[1]["bad_samples"]]
    except (KeyError, ValueError):
        return []


def _alone(task: Task, plan: Plan, split: SplitName | None) -> data.Split:
    """That split in the place of training and validation set: the task may have no other."""
    if split in ("train", "valid") and task.valid is None:
        return _with(data.split(task, plan), task, split)
    sets = {None: task.train, "train": task.train, "valid": task.valid, "test": task.test}
    if sets[split] is None:
        raise _no_test_set()
    count = data.count_of(sets[split], split or "train")
    own = {"train": task.length, "valid": task.valid_length}.get(split or "")
    return data.Split(sets[split], sets[split], count, count, own, valid_length=own)


def _with(parts: data.Split, task: Task, split: SplitName | None) -> data.Split:
    """The split in the validation set's place. Raises AutotrainError for one that is not there."""
    if split is None or split == "valid":
        return parts
    if split == "train":
        count, length = parts.train_count, parts.length
        return replace(parts, valid=parts.train, valid_count=count, valid_length=length)
    if task.test is None:
        raise _no_test_set()
    count = data.count_of(task.test, "test")
    return replace(parts, valid=task.test, valid_count=count, valid_length=None)


def _no_test_set() -> AutotrainError:
    return AutotrainError(
        "the task has no test set",
        "Task(test=...) is one; for shipped templates a `test` folder or split of the data",
    )


def _feed(
    plan: Plan, parts: data.Split, task: Task, model: torch.nn.Module, task_file: Path,
    folder: Path,
) -> Feed:  # fmt: skip
    """The way once through the validation set, cut as the run cuts it."""
    order, valid = ordered(plan, parts, model)
    cadence = Cadence.of(plan, order.steps_per_epoch)
    source = Source(parts, task, plan.run.seed, task_file)
    way = Itinerary(order, cadence, valid, last=0, evaluated=-1)
    counts = (parts.train_count, parts.valid_count)
    aside = Aside(source, counts, plan.heal.bad_samples)
    once = plan.loader.model_copy(update={"keep": None})
    return Feed(source, way, once, device_of(plan.device), aside, folder)
