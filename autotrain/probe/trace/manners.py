"""How a task's code goes about its step, where memory depends on that too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from autotrain.probe.trace.formulas import in_a_backward
from autotrain.probe.trace.rules import sized_by_values


class Manners:
    """Seen as its operators run; `told` are the fields of StepTrace."""

    def __init__(self) -> None:
        self.recomputes = self.varies = self._backward = False

    @contextmanager
    def backward(self) -> Iterator[None]:
        """While it lasts, gradients are computed: what runs as in a forward pass runs again."""
        self._backward = True
        try:
            yield
        finally:
            self._backward = False

    def see(self, name: str, args: Any) -> None:
        """An operator that runs."""
        self.varies = self.varies or sized_by_values(name, args)
        if self._backward and torch.is_grad_enabled() and in_a_backward():
            self.recomputes = True

    def told(self) -> dict[str, Any]:
        """By field of StepTrace."""
        return {"recomputes": self.recomputes, "varies": self.varies}
