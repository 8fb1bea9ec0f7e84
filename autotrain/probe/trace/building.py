"""The user's model on fake tensors: shapes without data, so that any size costs nothing."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy

from autotrain.errors import AutotrainError
from autotrain.probe.limits import usable_memory
from autotrain.probe.trace.counter import Counter, TooMuch
from autotrain.probe.trace.values import FEW, Values, small_enough
from autotrain.task import Task, user_error

_GIB = 2**30
_SOON_BUILT = _GIB // 4  # bytes of parameters: building so much for real costs about a second
_FEW = 8  # elements: a buffer of so few floats keeps its values (flags and scales, not statistics)


def build(task: Task, path: Path, *, insist: bool = False) -> tuple[nn.Module, FakeTensorMode]:
    """The model on fake tensors: built there, or built for real and turned fake.

    `insist`: built for real whatever memory that takes, where it must be.
    Raises AutotrainError where it cannot be built, is no module, or has nothing to train.
    """
    if isinstance(task.model, nn.Module):
        kind = type(task.model).__name__
        raise AutotrainError(
            f"{path}: Task(model=...) is a {kind}, not a function that builds one",
            f"model=lambda: {kind}(...): a plan calls it, and each run, for a model of its own",
        )
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model, born = _built(task, path, mode, insist)
    if not isinstance(model, nn.Module):
        raise AutotrainError(
            f"{path}: the model is {type(model).__name__}, not torch.nn.Module",
            "return a new model from Task(model=...)",
        )
    _refuse_lazy(model, path)
    if not any(p.requires_grad for p in model.parameters()):
        raise AutotrainError(f"{path}: the model has no trainable parameter", "unfreeze a layer")
    model = _as_fake(model, mode, born)
    _unnested(model)
    return model, mode


def _unnested(model: nn.Module) -> None:
    """Padding is computed like the rest: there are no fake tensors of nested ones.

    A transformer encoder of torch's leaves padding out where it validates.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _refuse_lazy(model: nn.Module, path: Path) -> None:
    """Layers that learn their sizes from a first batch have none to plan with, or to resume."""
    for name, module in model.named_modules():
        if any(is_lazy(p) for p in module.parameters(recurse=False)):
            raise AutotrainError(
                f"{path}: {type(module).__name__} {name or 'itself'} of the model has no sizes yet",
                "give it its sizes, or have Task(model=...) call the model on a sample first",
            )


def _built(task: Task, path: Path, mode: FakeTensorMode, insist: bool) -> tuple[nn.Module, Counter]:
    """The model, and the counter that saw its tensors being born.

    Where the code that builds it reads numbers out of its weights, a small model is built for
    real; of a large one, the numbers are taken for 1 or, if that fails, for 0.
    """
    for answer in (1, 0):
        values = Values(mode, answer, FEW)
        born = Counter(values)
        with suppress(Exception):
            with mode, born:
                model = task.model()
            size = _parameter_bytes(model) if isinstance(model, nn.Module) else 0
            if values.asked and size <= _SOON_BUILT:
                break
            return model, born
    born = Counter()
    born.limit = None if insist else max(_GIB, usable_memory().available_bytes // 4)
    with born:
        model = real_model(task, path)
    return model, born


def _parameter_bytes(model: nn.Module) -> int:
    known = (p for p in model.parameters() if not is_lazy(p))
    return sum(p.nbytes for p in known)


def _as_fake(model: nn.Module, mode: FakeTensorMode, born: Counter) -> nn.Module:
    """Give every parameter and buffer a fake of its own; a tensor used twice stays one.

    Those that are fake already are made anew: `copy.deepcopy` of a fake tensor (which
    nn.TransformerEncoder does to its layers) breaks the tie between it and its views.
    Buffers of integers keep their values.
    """
    model = _apart(model, mode, born)
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                made.setdefault(id(tensor), _fake(tensor, mode))
                setattr(module, name, made[id(tensor)])
    return model


def _apart(model: nn.Module, mode: FakeTensorMode, born: Counter) -> nn.Module:
    """A model that was not made just now is the user's own object: a copy, its tensors fake."""
    real = [t for t in (*model.parameters(), *model.buffers()) if not isinstance(t, FakeTensor)]
    if all(born.knows(tensor) for tensor in real):
        return model
    try:
        return copy.deepcopy(model, {id(t): _fake(t, mode, own=False) for t in real})
    except Exception:  # it holds something that cannot be copied
        return model


def _fake(tensor: torch.Tensor, mode: FakeTensorMode, *, own: bool = True) -> torch.Tensor:
    """A fake of this tensor, or, where its values are kept, the tensor or (not `own`) a copy."""
    if _kept(tensor):
        return tensor if own else tensor.clone()
    with mode:
        new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(new, requires_grad=tensor.requires_grad)
    return new


def _kept(tensor: torch.Tensor) -> bool:
    if isinstance(tensor, FakeTensor | nn.Parameter):
        return False
    return tensor.numel() <= _FEW if tensor.is_floating_point() else small_enough(tensor)


def real_model(task: Task, path: Path) -> nn.Module:
    """The model as it is. Raises AutotrainError, naming the task file's line, if that fails."""
    try:
        return task.model()
    except AutotrainError:
        raise
    except TooMuch as error:
        raise AutotrainError(
            f"{path}: building the model reads the values of its tensors, so it was built for "
            f"real, and it takes more than {error}",
            "plan with --trial on the machine that will train it: then it is built all the same",
        ) from error
    except Exception as error:
        raise user_error(path, error, "building the model: ") from error
