"""What a task's loss makes of a micro-batch, in the run's precision."""

from __future__ import annotations

import math
from typing import Any

import torch

from autotrain.device import Precision
from autotrain.errors import AutotrainError
from autotrain.run.meter import Number
from autotrain.task import Loss, Task


def loss_of(task: Task, model: torch.nn.Module, precision: Precision, batch: Any) -> Loss:
    """Raises AutotrainError where it is no Loss, or of a weight below 0 that is a number."""
    if precision.casts:
        with precision.autocast():
            made = task.loss(model, batch)
    else:
        made = task.loss(model, batch)
    if not isinstance(made, Loss):
        raise AutotrainError(
            f"the task's loss returned {type(made).__name__}, not autotrain.Loss",
            "return Loss(total=the sum, weight=how many items it was summed over)",
        )
    if not isinstance(made.weight, torch.Tensor) and made.weight < 0:
        raise AutotrainError(
            f"the task's loss returned a weight of {made.weight:g}",
            "a weight counts the items that the total was summed over: 0 or more",
        )
    return made


def sound(weight: Number) -> Number:
    """NaN in place of what is no weight, below 0 or infinite, as its loss is no figure then.

    A tensor is not read; one of integers stays exact, and unlooked at.
    """
    if isinstance(weight, torch.Tensor):
        return weight + 0.0 * weight.sqrt() if weight.is_floating_point() else weight
    return float(weight) if 0 <= weight < math.inf else math.nan
