"""Tensors of a model and its optimizer as flat, independent CPU copies, and the way back.

The copies are what a checkpoint writes, so the writing need not hold up the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from autotrain.averaging import Average
from autotrain.errors import AutotrainError
from autotrain.optimizer import grouped


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

    def gathered(self, value: torch.Tensor, _like: torch.Tensor | None = None) -> torch.Tensor:
        """A whole copy on the CPU."""
        return own_copy(value)

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
        self, value: torch.Tensor, like: torch.Tensor | None = None, /
    ) -> torch.Tensor: ...
    def part(self, value: torch.Tensor, like: torch.Tensor, /) -> torch.Tensor: ...  # noqa: D102
    def divided(self, value: torch.Tensor, parameter: Any, /) -> torch.Tensor: ...  # noqa: D102
    def place(self, value: torch.Tensor, /) -> tuple[Any, ...]: ...  # noqa: D102


UNDIVIDED = Undivided()


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
            tensors[name] = layout.gathered(value)
    return Flat(tensors, aliases, rest)


def restore_model(model: torch.nn.Module, flat: Flat, layout: Layout = UNDIVIDED) -> None:
    """Raises AutotrainError where names or shapes are not this model's."""
    tensors = {**flat.tensors, **{name: flat.tensors[one] for name, one in flat.aliases.items()}}
    here = dict(model.named_parameters(remove_duplicate=False))
    state: dict[str, Any] = {**tensors, **flat.rest}
    state |= {n: layout.divided(v, here[n]) for n, v in tensors.items() if n in here}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise AutotrainError(
            f"the checkpoint is of another model: {error}",
            "resume with the code and options that the run began with, or start a fresh run",
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
    rest: dict[str, Any] = {}
    state = optimizer.state_dict()
    places = _places(optimizer, parameters)
    for number, place in enumerate(places):
        for name, value in state["state"].get(place, {}).items():
            key = f"{number}.{name}"
            if isinstance(value, torch.Tensor):
                tensors[key] = layout.gathered(value, parameters[number])
            else:
                rest[key] = _plain(key, value)
    return Flat(tensors, {}, {"state": rest, "param_groups": state["param_groups"]})


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
            "resume with the code and options that the run began with, or start a fresh run",
        )
    saved: dict[int, dict[str, Any]] = {}
    places = _places(optimizer, parameters)
    for key, value in {**flat.tensors, **flat.rest["state"]}.items():
        number, _, name = key.partition(".")
        owner = parameters[int(number)]
        own = layout.part(value, owner) if isinstance(value, torch.Tensor) else value
        kept = _laid_out_like(own, owner)
        saved.setdefault(places[int(number)], {})[name] = kept
    optimizer.load_state_dict({"state": saved, "param_groups": groups})


def _places(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> list[int]:
    """Where each of the parameters is in the optimizer's own order."""
    place = {id(parameter): number for number, parameter in enumerate(grouped(optimizer))}
    return [place[id(parameter)] for parameter in parameters]


def flatten_average(average: Average, model: Flat, layout: Layout = UNDIVIDED) -> Flat:
    """A whole state of the model with the averaged tensors in place of its own.

    What is not averaged is not copied again.
    """
    own = {
        name: layout.gathered(value, live)
        for (name, value), live in zip(average.tensors().items(), average.live, strict=True)
    }
    return Flat({**model.tensors, **own}, model.aliases, model.rest)


def _laid_out_like(value: Any, owner: torch.Tensor) -> Any:
    """A copy, as torch would go on with the file's own mapped memory, strided like its owner.

    Fused optimizers walk through parameter and state side by side, by address.
    """
    if not isinstance(value, torch.Tensor):
        return value
    if owner.shape != value.shape:
        return value.clone()
    return torch.empty_like(owner, dtype=value.dtype, device=value.device).copy_(value)


def own_copy(value: torch.Tensor) -> torch.Tensor:
    """A contiguous CPU copy that shares memory with nothing."""
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def all_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether every floating-point value is finite."""
    # The least and the greatest are not finite if any is: one pass, where isfinite makes a mask.
    return all(
        bool(torch.stack(torch.aminmax(value)).isfinite().all())
        for value in tensors.values()
        if value.is_floating_point() and value.numel()
    )


def _place(value: torch.Tensor) -> tuple[Any, ...]:
    storage = value.untyped_storage().data_ptr()
    where = (storage, value.storage_offset(), value.device)
    return (*where, value.dtype, tuple(value.shape), value.stride())


def _plain(name: str, value: Any) -> Any:
    """A value that JSON holds as it is. Raises AutotrainError for any other: no pickle here."""
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise AutotrainError(
        f"{name}: a {type(value).__name__} cannot be kept in a checkpoint (tensors and JSON only)",
        "keep tensors, numbers, strings, lists or dicts in the module's extra state",
    )
