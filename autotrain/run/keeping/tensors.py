"""Tensors of a model and its optimizer as flat, independent CPU copies, and the way back.

The copies are what a checkpoint writes, so the writing need not hold up the training.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from autotrain.averaging import Average
from autotrain.errors import AutotrainError
from autotrain.optimizer import grouped
from autotrain.run.keeping import tensorfile
from autotrain.run.keeping.copies import own_copy

_ANOTHER = "resume with the code and options that the run began with, or start a fresh run"


class UnkeptError(AutotrainError):
    """Something of a model's state that no checkpoint can hold; the message names it."""


@dataclass(frozen=True)
class Flat:
    """Named tensors, and as JSON what is no tensor. `aliases`: name -> the name it shares."""

    tensors: dict[str, torch.Tensor]
    aliases: dict[str, str]
    rest: dict[str, Any]


class Undivided:
    """Tensors that are whole in this process. `Shards` has the same for those that are not."""

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """What of a parameter is here: all."""
        return tensor

    def gathered(
        self, values: Sequence[torch.Tensor], _like: Sequence[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """Whole copies on the CPU."""
        return [own_copy(value) for value in values]

    def part(self, value: torch.Tensor, _like: torch.Tensor) -> torch.Tensor:
        """What of a whole tensor belongs here."""
        return value

    def divided(self, value: torch.Tensor, _parameter: Any) -> torch.Tensor:
        """What stands in the model for a whole tensor."""
        return value

    def place(self, value: torch.Tensor) -> tuple[Any, ...]:
        """Where it lies: equal for tensors that are one and the same."""
        return _place(value)


class Layout(Protocol):
    """How a model's tensors lie in one process, or in several."""

    def own(self, tensor: torch.Tensor, /) -> torch.Tensor: ...  # noqa: D102
    def gathered(  # noqa: D102
        self, values: Sequence[torch.Tensor], like: Sequence[torch.Tensor] | None = None, /
    ) -> list[torch.Tensor]: ...
    def part(self, value: torch.Tensor, like: torch.Tensor, /) -> torch.Tensor: ...  # noqa: D102
    def divided(self, value: torch.Tensor, parameter: Any, /) -> torch.Tensor: ...  # noqa: D102
    def place(self, value: torch.Tensor, /) -> tuple[Any, ...]: ...  # noqa: D102


UNDIVIDED = Undivided()


def tensors_of(model: torch.nn.Module) -> int:
    """More than a file of a checkpoint of this model, or of one much like it, can hold."""
    return 1000 + 10 * len(model.state_dict(keep_vars=True))


def insist_kept(model: torch.nn.Module) -> None:
    """Raise UnkeptError for what of a model's state no checkpoint can hold."""
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            _plain(name, value)
        elif value.layout != torch.strided or value.dtype not in tensorfile.NAMES:
            kind = value.dtype if value.layout == torch.strided else value.layout
            raise UnkeptError(
                f"{name}: a tensor of {kind} cannot be kept in a checkpoint",
                "keep it in another dtype, or register the buffer with persistent=False",
            )


def flatten_model(model: torch.nn.Module, layout: Layout = UNDIVIDED) -> Flat:
    """A model's state; tensors that are one and the same (tied weights) are copied once."""
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    rest: dict[str, Any] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            rest[name] = _plain(name, value)
        elif value.numel() and (first := seen.setdefault(layout.place(value), name)) != name:
            aliases[name] = first
        else:
            tensors[name] = value
    return Flat(_named(tensors, layout.gathered([*tensors.values()])), aliases, rest)


def restore_model(model: torch.nn.Module, flat: Flat, layout: Layout = UNDIVIDED) -> None:
    """Raises AutotrainError where names or shapes are not this model's."""
    tensors = {**flat.tensors, **{name: flat.tensors[one] for name, one in flat.aliases.items()}}
    here = dict(model.named_parameters(remove_duplicate=False))
    state: dict[str, Any] = {**tensors, **flat.rest}
    state |= {n: layout.divided(v, here[n]) for n, v in tensors.items() if n in here}
    try:
        model.load_state_dict(state)
    except Exception as error:  # of torch, or of a module's own set_extra_state
        said = "\n".join(line[:300] for line in str(error).splitlines()[:100])
        raise AutotrainError(
            f"the checkpoint is of another model: {said or type(error).__name__}",
            _ANOTHER,
        ) from None


def flatten_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.Tensor],
    layout: Layout = UNDIVIDED,
) -> Flat:
    """An optimizer's state: tensors as `<number>.<name>`, the rest under the same keys.

    The number is a parameter's place in `parameters`, the model's trainable ones in its own order:
    how they are grouped changes no key.
    """
    tensors: dict[str, torch.Tensor] = {}
    owners: list[torch.Tensor] = []
    rest: dict[str, Any] = {}
    state = optimizer.state_dict()
    places = _places(optimizer, parameters)
    for number, place in enumerate(places):
        for name, value in state["state"].get(place, {}).items():
            key = f"{number}.{name}"
            if isinstance(value, torch.Tensor):
                tensors[key] = value
                owners.append(parameters[number])
            else:
                rest[key] = _plain(key, value)
    copies = _named(tensors, layout.gathered([*tensors.values()], owners))
    return Flat(copies, {}, {"state": rest, "param_groups": state["param_groups"]})


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.Tensor],
    flat: Flat,
    layout: Layout = UNDIVIDED,
) -> None:
    """Give an optimizer its state back; its settings stay those of the plan it was built from.

    Raises AutotrainError where the state is of another optimizer or other parameters.
    """
    groups = optimizer.state_dict()["param_groups"]
    theirs = sum(len(group["params"]) for group in flat.rest["param_groups"])
    if theirs != len(parameters):
        raise AutotrainError(
            f"the checkpoint's optimizer trained other parameters: {theirs}, and these are "
            f"{len(parameters)}",
            _ANOTHER,
        )
    saved: dict[int, dict[str, Any]] = {}
    places = _places(optimizer, parameters)
    for key, value in {**flat.tensors, **flat.rest["state"]}.items():
        number, _, name = key.partition(".")
        owner = parameters[_place_in(number, parameters)]
        own = layout.part(value, owner) if isinstance(value, torch.Tensor) else value
        kept = _laid_out_like(own, owner)
        saved.setdefault(places[int(number)], {})[name] = kept
    _insist_usual(optimizer, saved)
    optimizer.load_state_dict({"state": saved, "param_groups": groups})


def _place_in(number: str, parameters: Sequence[torch.Tensor]) -> int:
    if not number.isdecimal() or int(number[:18]) >= len(parameters):
        raise AutotrainError(f"optimizer: {number[:40]!r} is the number of no parameter", _ANOTHER)
    return int(number)


def _insist_usual(optimizer: torch.optim.Optimizer, saved: dict[int, dict[str, Any]]) -> None:
    """Raise AutotrainError unless the state is what this optimizer keeps, each value as large as
    its parameter, or a number: kernels that are fused go by address, and ask no more.
    """
    usual, owners = _state_of_one(optimizer), grouped(optimizer)
    for place, held in saved.items():
        kept = {name: value for name, value in held.items() if value is not None}
        odd = kept.keys() ^ usual.keys()
        for name in kept.keys() & usual.keys():
            value, whole = kept[name], usual[name].dim() > 0
            kind = (
                torch.is_complex
                if whole and owners[place].is_complex()
                else torch.is_floating_point
            )
            sound = isinstance(value, torch.Tensor) and kind(value)
            fits = sound and value.shape == (owners[place].shape if whole else ())
            if not fits or (not whole and not 0 <= float(value) < math.inf):
                odd |= {name}
        if kept and odd:
            raise AutotrainError(
                f"the checkpoint's optimizer is another one: {min(odd)[:80]!r} of number {place}",
                _ANOTHER,
            )


def _state_of_one(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What it keeps of a parameter: after the first step of another one like it."""
    kind: Any = type(optimizer)
    takes = inspect.signature(kind).parameters
    arguments = {key: value for key, value in optimizer.defaults.items() if key in takes}
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    one = kind([parameter], **arguments)
    one.step()
    return {name: held for name, held in one.state[parameter].items() if held is not None}


def _places(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> list[int]:
    """Where each of the parameters is in the optimizer's own order."""
    place = {id(parameter): number for number, parameter in enumerate(grouped(optimizer))}
    return [place[id(parameter)] for parameter in parameters]


def flatten_average(average: Average, model: Flat, layout: Layout = UNDIVIDED) -> Flat:
    """A whole state of the model with the averaged tensors in place of its own.

    What is not averaged is not copied again.
    """
    averaged = average.tensors()
    own = _named(averaged, layout.gathered([*averaged.values()], average.live))
    return Flat({**model.tensors, **own}, model.aliases, model.rest)


def _named(names: Iterable[str], copies: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(names, copies, strict=True))


def _laid_out_like(value: Any, owner: torch.Tensor) -> Any:
    """A copy, as torch would go on with the file's own mapped memory, strided like its owner.

    Fused optimizers walk through parameter and state side by side, by address.
    """
    if not isinstance(value, torch.Tensor):
        return value
    if owner.shape != value.shape:
        return value.clone()
    return torch.empty_like(owner, dtype=value.dtype, device=value.device).copy_(value)


def _place(value: torch.Tensor) -> tuple[Any, ...]:
    storage = value.untyped_storage().data_ptr()
    where = (storage, value.storage_offset(), value.device)
    return (*where, value.dtype, tuple(value.shape), value.stride())


def _plain(name: str, value: Any) -> Any:
    """A value that JSON holds as it is. Raises UnkeptError for any other: no pickle here."""
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UnkeptError(
        f"{name}: a {type(value).__name__} cannot be kept in a checkpoint (tensors and JSON only)",
        "keep tensors, numbers, strings, lists or dicts in the module's extra state",
    )
