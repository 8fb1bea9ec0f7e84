"""Starting weights from a file of the user's own."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from autotrain.errors import AutotrainError

_log = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a torch file without running code that it holds.

    Raises AutotrainError, naming the file.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors' own error has no other base
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise AutotrainError(f"{path}: no weights can be read from it ({why})") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise AutotrainError(
            f"{path}: no state dict of tensors", "torch.save(model.state_dict(), FILE)"
        )
    return state


def load_weights(model: torch.nn.Module, given: dict[str, torch.Tensor], path: Path) -> None:
    """Copy the weights whose name and shape the model has, and say which they lack.

    `given` are those read from `path`. A model on the meta device is left as it is.
    Raises AutotrainError where fewer than half of the model's tensors fit.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if 2 * len(fitting) < len(own):
        raise AutotrainError(
            f"{path}: {len(fitting)} of the model's {len(own)} tensors are in it",
            "weights of the same architecture are needed",
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    model.load_state_dict(fitting, strict=False)
    if missing := sorted(set(own) - set(fitting)):
        _log.warning("%s: not in it, start anew: %s", path, ", ".join(missing))
