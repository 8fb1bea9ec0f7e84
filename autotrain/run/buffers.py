"""A model's buffers as they were before a step."""

from __future__ import annotations

import torch


class Buffers:
    """A copy of the model's buffers as they were before a step (BatchNorm's statistics, say).

    A model that assigns a new tensor to a buffer is followed: what is kept is the place.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._places = [
            (module._buffers, name)
            for module in model.modules()
            for name, value in module._buffers.items()
            if value is not None
        ]
        self._kept: list[torch.Tensor] = []

    def _now(self) -> list[torch.Tensor]:
        return [value for owner, name in self._places if (value := owner[name]) is not None]

    def keep(self) -> None:
        """Copy them, into the same memory each time."""
        if not self._places:
            return
        now = self._now()
        with torch.no_grad():
            if [b.shape for b in now] == [b.shape for b in self._kept]:
                torch._foreach_copy_(self._kept, now)
            else:
                self._kept = [buffer.clone() for buffer in now]

    @torch.no_grad()
    def settle(self, bad: torch.Tensor) -> None:
        """Put them back where `bad` is 1, on the device: nothing is read."""
        if not self._places:
            return
        for now, kept in zip(self._now(), self._kept, strict=True):
            now.copy_(torch.where(bad.reshape(()) > 0, kept, now))

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back as they were kept."""
        for (owner, name), kept in zip(self._places, self._kept, strict=True):
            now = owner[name]
            if now is not None and now.shape == kept.shape:
                now.copy_(kept)
            else:
                owner[name] = kept.clone()
