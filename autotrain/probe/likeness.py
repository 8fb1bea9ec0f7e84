"""Whether samples are the same at each reading, as far as that can be seen, and stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_TWICE = 2  # samples that are read again


def content(item: Any) -> Iterator[bytes]:
    """What a sample holds, as bytes; of an object that we do not know, its type."""
    import numpy as np
    import torch

    yield type(item).__name__.encode()
    if isinstance(item, torch.Tensor):
        yield f"{tuple(item.shape)} {item.dtype}".encode()
        yield item.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(item, np.ndarray) and not item.dtype.hasobject:
        yield f"{item.shape} {item.dtype}".encode()
        yield item.tobytes()
    elif isinstance(item, bool | int | float | complex | str | bytes | np.generic):
        yield repr(item).encode()
    elif isinstance(item, Mapping):
        yield from content([*item.items()])
    elif isinstance(item, list | tuple):
        for part in item:
            yield from content(part)
    elif is_dataclass(item):
        yield from content([getattr(item, field.name) for field in fields(item)])


def steady(dataset: Any, samples: Mapping[int, Any]) -> bool:
    """Whether a few, by their index, read again to the same content, without random numbers.

    Of kinds whose content can be told; a run that keeps samples asks for the same.
    """
    before = _generators()
    try:
        again = {index: dataset[index] for index in [*samples][:_TWICE]}
    except Exception:
        return False
    same = all(
        _told(samples[i]) and [*content(each)] == [*content(samples[i])]
        for i, each in again.items()
    )
    return same and _generators() == before


def stack(samples: list[Any]) -> bool:
    """Whether torch's own collate makes tensors alone of them."""
    from torch.utils.data import default_collate

    try:
        return _only_tensors(default_collate(samples))
    except Exception:  # of sizes that differ, or of a kind that torch does not stack
        return False


def _told(item: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(item, Mapping):
        return all(_told(part) for part in item.values())
    if isinstance(item, list | tuple):
        return all(_told(part) for part in item)
    if isinstance(item, np.ndarray):
        return not item.dtype.hasobject
    plain = bool | int | float | complex | str | bytes | None
    return isinstance(item, torch.Tensor | np.generic | plain)


def _only_tensors(batch: Any) -> bool:
    import torch

    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, torch.Tensor) or not isinstance(batch, Mapping | list | tuple):
        return isinstance(batch, torch.Tensor)
    return all(_only_tensors(part) for part in parts)


def _generators() -> list[Any]:
    """Where the generators stand that a dataset may draw from."""
    import random

    import numpy as np
    import torch

    numpy = np.random.get_state(legacy=False)
    return [torch.get_rng_state().tolist(), random.getstate(), str(numpy)]
