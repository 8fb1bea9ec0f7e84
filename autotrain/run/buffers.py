"""A model's buffers as they were before a step."""

from __future__ import annotations

from collections.abc import Iterator

import torch

Form = tuple[torch.Size, torch.dtype, torch.device] | None


class Buffers:
    """A copy of the model's buffers as they were before a step (BatchNorm's statistics, say).

    A model that assigns a new tensor to a buffer is followed: what is kept is the place. Where
    the new one has another shape, or there is none any more, it is the model's own cache and
    stays: to put a shorter one back would contradict what else the model knows of it.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._places = [
            (module._buffers, name) for module in model.modules() for name in module._buffers
        ]
        self._kept: list[torch.Tensor | None] = []
        self._forms: list[Form] = []

    def keep(self) -> None:
        """Copy them, into the same memory each time."""
        now = [owner.get(name) for owner, name in self._places]
        forms = [_form(buffer) for buffer in now]
        with torch.no_grad():
            if forms != self._forms:
                self._kept = [None if buffer is None else buffer.clone() for buffer in now]
                self._forms = forms
            elif present := [buffer for buffer in now if buffer is not None]:
                kept = [buffer for buffer in self._kept if buffer is not None]
                torch._foreach_copy_(kept, present)

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each buffer and what was kept of it, where that can stand for it."""
        for (owner, name), kept, form in zip(self._places, self._kept, self._forms, strict=True):
            now = owner.get(name)
            if now is not None and kept is not None and _form(now) == form:
                yield now, kept

    @torch.no_grad()
    def settle(self, bad: torch.Tensor) -> None:
        """Put them back where `bad` is 1, on the device: nothing is read."""
        for now, kept in self._pairs():
            now.copy_(torch.where(bad.reshape(()) > 0, kept, now))

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back as they were kept."""
        for now, kept in self._pairs():
            now.copy_(kept)


def _form(buffer: torch.Tensor | None) -> Form:
    return None if buffer is None else (buffer.shape, buffer.dtype, buffer.device)
