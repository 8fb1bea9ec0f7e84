"""A batch is whatever a collate function made: tensors nested in ordinary containers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def map_tensors(function: Callable[[torch.Tensor], Any], batch: Any) -> Any:
    """`function` over every tensor of a batch: tensors, dicts, lists, tuples, dataclasses.

    Containers are copied, never changed. Anything else is passed through as it is. A
    PackedSequence keeps its `batch_sizes` on the CPU, where torch insists that they stay.
    """
    import torch

    def packed(item: Any) -> Any:
        sizes = function(item.batch_sizes)
        stays = isinstance(sizes, torch.Tensor) and sizes.device.type == "cpu"
        order = (walk(item.sorted_indices), walk(item.unsorted_indices))
        return type(item)(walk(item.data), sizes if stays else item.batch_sizes, *order)

    def walk(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return function(item)
        if isinstance(item, torch.nn.utils.rnn.PackedSequence):
            return packed(item)
        if isinstance(item, Mapping):
            return _same_mapping(item, {key: walk(value) for key, value in item.items()})
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*(walk(part) for part in item))
        if isinstance(item, list | tuple):
            return type(item)(walk(part) for part in item)
        if is_dataclass(item) and not isinstance(item, type):
            return _same_record(item, {f.name: walk(getattr(item, f.name)) for f in fields(item)})
        return item

    return walk(batch)


def tensors_in(batch: Any) -> list[torch.Tensor]:
    """The tensors of nested containers, in the order in which `map_tensors` meets them."""
    met: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        met.append(tensor)
        return tensor

    map_tensors(keep, batch)
    # `map_tensors` is in a reference cycle with that list: no tensor may live on in it.
    found = met.copy()
    met.clear()
    return found


def _same_mapping(item: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """`values` in a mapping like `item`: a defaultdict keeps its factory."""
    if not isinstance(item, MutableMapping):
        return type(item)(values)  # type: ignore[call-arg]
    same = copy.copy(item)
    for key, value in values.items():
        same[key] = value
    return same


def _same_record(item: Any, values: dict[str, Any]) -> Any:
    """`values` in a dataclass like `item`, frozen or not; `__post_init__` runs no second time."""
    same = copy.copy(item)
    for name, value in values.items():
        object.__setattr__(same, name, value)
    return same
