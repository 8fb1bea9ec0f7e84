"""Starting weights from a file of the user's own, or of somebody else's."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from autotrain.foreign import fitting
from autotrain.foreign.weights import read

_log = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a torch file without running code that it holds.

    Raises AutotrainError, naming the file.
    """
    return read(path).tensors


def load_weights(model: torch.nn.Module, given: dict[str, torch.Tensor], path: Path) -> None:
    """Copy the weights whose name and shape the model has, and say which they lack.

    `given` are those read from `path`. A model on the meta device is left as it is.
    Raises AutotrainError where fewer than half of the model's tensors fit.
    """
    own = fitting.own_tensors(model)
    theirs = fitting.named_as(own, given)
    kinds = fitting.kinds(own, theirs)
    fitting.insist_on_half(path, kinds, theirs)
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    fitting.copy_into(own, theirs, kinds)
    if missing := sorted(name for name, kind in kinds.items() if kind != fitting.TAKEN):
        _log.warning("%s: not in it, start anew: %s", path, ", ".join(missing))
