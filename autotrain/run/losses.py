"""What a task's loss makes of a micro-batch, in the run's precision."""

from __future__ import annotations

from typing import Any

import torch

from autotrain.device import Precision
from autotrain.errors import AutotrainError
from autotrain.task import Loss, Task


def loss_of(task: Task, model: torch.nn.Module, precision: Precision, batch: Any) -> Loss:
    """Raises AutotrainError where it is no Loss."""
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
    return made
