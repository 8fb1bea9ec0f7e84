"""A model's weights alone: safetensors, or a .pt that `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.exporting.agreement import Agreement
from autotrain.exporting.made import Made
from autotrain.run.keeping import tensorfile

Judge = Callable[[nn.Module], list[float]]


def write(
    model: nn.Module, again: Callable[[], nn.Module], judge: Judge, samples: Sequence[int],
    path: Path, notes: Mapping[str, str],
) -> Made:  # fmt: skip
    """Write its state dict, every name with its tensor, tied ones too.

    Checked in a model that `again` builds: it takes all names, and `judge` says the same of both
    on batches of so many `samples`. Raises AutotrainError.
    """
    state: dict[str, Any] = dict(model.state_dict())
    tensors = {name: _own(value) for name, value in state.items() if torch.is_tensor(value)}
    others = sorted(state.keys() - tensors)
    if path.suffix == ".safetensors":
        if others:
            raise AutotrainError(
                f"{others[0]} is no tensor, and safetensors holds nothing else", "-o model.pt"
            )
        tensorfile.write(path, tensorfile.tensor_chunks(tensors, notes))
    else:
        made = io.BytesIO()
        torch.save({**state, **tensors}, made)
        path.write_bytes(made.getbuffer())
    fresh = again().eval()
    fresh.load_state_dict(_read(path))
    differ = [name for name, value in fresh.state_dict().items() if not _same(value, state[name])]
    if differ or (said := judge(fresh)) != (wanted := judge(model)):
        why = f"{differ[0]} is another one" if differ else f"{said} and not {wanted}"
        raise AutotrainError(f"a model with the exported weights is not this one: {why}")
    most = tuple(samples)
    return Made("state_dict", [], Agreement(most, 0.0, 0.0), more={"tensors": len(tensors)})


def _own(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    read: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return read


def _same(a: Any, b: Any) -> bool:
    if not torch.is_tensor(a):
        return bool(a == b)
    return a.dtype == b.dtype and torch.equal(
        a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)
    )
