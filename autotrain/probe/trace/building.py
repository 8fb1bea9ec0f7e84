"""The user's model on fake tensors: shapes without data, so that any size costs nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotrain.errors import AutotrainError
from autotrain.task import Task, user_error


def build(task: Task, path: Path) -> tuple[nn.Module, FakeTensorMode]:
    """The model on fake tensors: built there, or built for real and turned fake.

    Raises AutotrainError where it cannot be built, is no module, or has nothing to train.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            model = task.model()
    except Exception:
        model = real_model(task, path)
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


def real_model(task: Task, path: Path) -> nn.Module:
    """The model as it is. Raises AutotrainError, naming the task file's line, if that fails."""
    try:
        return task.model()
    except AutotrainError:
        raise
    except Exception as error:
        raise user_error(path, error, "building the model: ") from error
