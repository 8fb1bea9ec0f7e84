"""How a task calls its model: caught on batches, and with nothing but tensors in and out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autotrain.batches import map_tensors, tensors_in
from autotrain.errors import AutotrainError

BATCH, LENGTH = "batch", "length"


@dataclass(frozen=True)
class Call:
    """What a model was given for a batch of `samples`, and the tensors of its answer."""

    samples: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    answer: list[torch.Tensor]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What it was given, as a flat list."""
        return tensors_in((self.args, self.kwargs))

    @property
    def shapes(self) -> list[list[int]]:
        """Of those."""
        return [list(tensor.shape) for tensor in self.tensors]


def caught(model: nn.Module, samples: int, use: Callable[[], object]) -> Call:
    """The first call of `model` that `use` makes, and what the model answers to it.

    Raises AutotrainError where `use` never calls it, where it is given no tensor, or where it
    answers the same twice otherwise.
    """
    seen: list[tuple[Any, Any]] = []

    def catch(_: nn.Module, args: Any, kwargs: Any) -> None:
        if not seen:
            seen.append(map_tensors(torch.clone, (args, kwargs)))

    with model.register_forward_pre_hook(catch, with_kwargs=True), torch.no_grad():
        use()
    if not seen:
        raise AutotrainError(
            f"the task's loss never calls the model itself ({type(model).__name__}), only parts",
            "have its forward do what is to be exported; --to state-dict needs no call",
        )
    args, kwargs = seen[0]
    answers = [_answer(model, args, kwargs) for _ in range(2)]
    if not all(_same(*pair) for pair in zip(*answers, strict=True)):
        raise AutotrainError(
            "the model's own answers differ from call to call: it draws random numbers",
            "in eval mode (`not self.training`) it should draw none",
        )
    call = Call(samples, args, kwargs, answers[0])
    if not call.tensors or not call.answer:
        what = "given no tensor" if not call.tensors else "answering with no tensor"
        raise AutotrainError(f"the model is {what}", "--to state-dict needs no call")
    return call


def _answer(model: nn.Module, args: Any, kwargs: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        mine, named = map_tensors(torch.clone, (args, kwargs))
        return [tensor.clone() for tensor in tensors_in(model(*mine, **named))]


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the bit, or both not a number."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


class Flat(nn.Module):
    """A model that takes the tensors of a call one by one, and answers with a tensor, or several.

    What else the call held (numbers, texts, None) it was made with, and keeps.
    """

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.like = (call.args, call.kwargs)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The model's answer, flat."""
        turn = iter(tensors)
        args, kwargs = map_tensors(lambda _: next(turn), self.like)
        found = tensors_in(self.model(*args, **kwargs))
        return found[0] if len(found) == 1 else tuple(found)


def names_of(model: nn.Module, call: Call) -> list[str]:
    """A name for each tensor of a call: that of the parameter of `forward` it is in."""
    known = list(inspect.signature(model.forward).parameters.values())
    plain = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    plain += [f"input_{n}" for n in range(len(plain), len(call.args))]
    found: list[str] = []
    for name, value in [*zip(plain, call.args, strict=False), *call.kwargs.items()]:
        count = len(tensors_in(value))
        found += [name] if count == 1 else [f"{name}_{n}" for n in range(count)]
    return found


Axes = list[dict[int, str]]


def axes_of(calls: Sequence[Call]) -> Axes:
    """For each tensor the sizes that change from call to call: {dimension: name}.

    Those that change alike have one name: `batch` for the number of samples, else `length`.
    Raises AutotrainError where the number of tensors or of dimensions changes.
    """
    kinds = {tuple(len(shape) for shape in call.shapes) for call in calls}
    if len(kinds) > 1:
        raise AutotrainError(
            "the model is given another number of tensors, or of dimensions, with each batch",
            "--to state-dict needs no call",
        )
    names = {tuple(call.samples for call in calls): BATCH}
    found: Axes = []
    for shapes in zip(*(call.shapes for call in calls), strict=True):
        axes: dict[int, str] = {}
        for dimension, sizes in enumerate(zip(*shapes, strict=True)):
            if len(set(sizes)) > 1:
                number = f"_{len(names)}" if len(names) > 1 else ""
                axes[dimension] = names.setdefault(sizes, f"{LENGTH}{number}")
        found.append(axes)
    return found


def only(axes: Axes, *names: str) -> Axes:
    """Those with such names."""
    return [{d: name for d, name in each.items() if name in names} for each in axes]


def fits(call: Call, like: Call, axes: Axes) -> bool:
    """Whether a call has the sizes of another, but for those in `axes`."""
    return all(
        mine == wanted or dimension in each
        for shape, other, each in zip(call.shapes, like.shapes, axes, strict=True)
        for dimension, (mine, wanted) in enumerate(zip(shape, other, strict=True))
    )
