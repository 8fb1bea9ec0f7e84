"""What is trained on and what is held out, and what each sample costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from autotrain.errors import AutotrainError
from autotrain.schema import VALID_SHARE, Plan
from autotrain.task import Task, hold_out, subset


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out, as map-style datasets, and each one's size.

    `length` is the task's, by index into `train`; `valid_length` by index into `valid`, the task's
    too or, where that was held out of the training samples, by `length`.
    """

    train: Any
    valid: Any
    train_count: int
    valid_count: int
    length: Callable[[int], float] | None
    valid_length: Callable[[int], float] | None = None

    @cached_property
    def lengths(self) -> torch.Tensor | None:
        """float64 [train_count]: what each training sample costs; None: the task does not say."""
        return _costs(self.length, self.train_count)

    @cached_property
    def valid_lengths(self) -> torch.Tensor | None:
        """float64 [valid_count]: what each validation sample costs; None: nobody says."""
        return _costs(self.valid_length, self.valid_count)


def split(task: Task, plan: Plan) -> Split:
    """The task's own split, or one made by the plan's share and seed.

    Raises AutotrainError for a dataset that is empty or has no length.
    """
    if task.valid is not None:
        sizes = count_of(task.train, "train"), count_of(task.valid, "valid")
        return Split(task.train, task.valid, *sizes, task.length, task.valid_length)
    share = plan.data.valid_share or VALID_SHARE
    train, valid = hold_out(count_of(task.train, "train"), share, plan.run.seed)
    parts = subset(task.train, train), subset(task.train, valid)
    costs, sizes = task.length, (len(train), len(valid))
    if costs is None:
        return Split(*parts, *sizes, None)
    return Split(*parts, *sizes, lambda i: costs(train[i]), lambda i: costs(valid[i]))


def count_of(dataset: Any, name: str) -> int:
    """How many samples. Raises AutotrainError for none, and for a dataset without a length."""
    try:
        count = len(dataset)
    except TypeError:
        raise AutotrainError(
            f"the task's {name} dataset ({type(dataset).__name__}) has no length",
            "give it __len__ and __getitem__ (a map-style dataset)",
        ) from None
    if count == 0:
        raise AutotrainError(f"the task's {name} dataset is empty", "check the data's path")
    return int(count)


def _costs(length: Callable[[int], float] | None, count: int) -> torch.Tensor | None:
    if length is None:
        return None
    return torch.tensor([float(length(index)) for index in range(count)], dtype=torch.float64)
