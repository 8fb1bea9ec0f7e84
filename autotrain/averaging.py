"""An exponential moving average of the weights: what is evaluated, and kept beside the weights.

After each committed step: average += (1 - d) x (weights - average), where d rises to the decay
as min(decay, (1 + n) / (10 + n)) with the updates n so far, as in TensorFlow and timm: early
weights are soon forgotten, and a short run averages about its last tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from autotrain.freezing import STATISTICS


def averaged_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What is averaged, by name: parameters that are trained, and norms' running statistics.

    Statistics are averaged, as with `use_buffers=True` in torch.optim.swa_utils: those of the
    last weights do not fit averaged ones. Every other buffer (a mask, a counter, a table) is used
    as it is, as torch does by default: no mean of those means anything.
    """
    found: dict[str, torch.Tensor] = {
        name: p for name, p in model.named_parameters() if p.requires_grad
    }
    for at, module in model.named_modules():
        if isinstance(module, _NormBase):
            own = ((name, getattr(module, name)) for name in STATISTICS)
            found |= {f"{at}.{name}" if at else name: b for name, b in own if b is not None}
    return found


Own = Callable[[torch.Tensor], torch.Tensor]


class Average:
    """The averaged weights of a model, in fp32 or better. They begin as the weights are now.

    `own`: what of each tensor is in this process. `live`: the model's own tensors.
    """

    def __init__(self, model: nn.Module, decay: float, own: Own = lambda tensor: tensor) -> None:
        self.decay = decay
        self.updates = 0
        live = averaged_tensors(model)
        self.names, self.live = [*live], [own(tensor) for tensor in live.values()]
        self._kept = [
            t.detach().to(torch.promote_types(t.dtype, torch.float32), copy=True) for t in self.live
        ]

    @torch.no_grad()
    def update(self, bad: torch.Tensor | float = 0.0) -> None:
        """Follow the weights after a step; where it was `bad`, it was not taken: nothing moves.

        A `bad` on the device (0 or 1) is not read.
        """
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if isinstance(bad, torch.Tensor):
            good = 1.0 - bad.reshape(())
            by = {dtype: share * good.to(dtype) for dtype in {t.dtype for t in self._kept}}
            torch._foreach_lerp_(self._kept, self._now(), [by[t.dtype] for t in self._kept])
        elif not bad:
            torch._foreach_lerp_(self._kept, self._now(), share)

    def _now(self) -> list[torch.Tensor]:
        pairs = zip(self.live, self._kept, strict=True)
        return [live if live.dtype == kept.dtype else live.to(kept.dtype) for live, kept in pairs]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, the model has the averaged weights; then its own, to the bit.

        They change places in the memory that they have: what points there keeps pointing right.
        What else this takes is taken before a weight moves: where there is none, none has moved.
        """
        pairs = [(live.detach(), kept) for live, kept in zip(self.live, self._kept, strict=True)]
        alike = [(live, kept) for live, kept in pairs if live.dtype == kept.dtype]
        # An average in a higher precision stays where it is: rounded, it would not come back.
        rounded = [(live, kept, live.clone()) for live, kept in pairs if live.dtype != kept.dtype]
        _swap(alike)
        for live, kept, _ in rounded:
            live.copy_(kept)
        try:
            yield
        finally:
            _swap(alike)
            for live, _, own in rounded:
                live.copy_(own)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages by name: the very tensors, not copies."""
        return dict(zip(self.names, self._kept, strict=True))

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Go on from these. Raises KeyError where one is missing."""
        for name, kept in zip(self.names, self._kept, strict=True):
            kept.copy_(tensors[name])
        self.updates = updates

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again with the weights as they are now."""
        self.load(dict(zip(self.names, self.live, strict=True)), 0)


def _swap(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """The two of each pair change places, to the bit and without any memory to do it in."""
    for pair in pairs:
        one, other = map(_bits, pair)
        one.bitwise_xor_(other)
        other.bitwise_xor_(one)
        one.bitwise_xor_(other)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as integers."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(torch.int64 if real.itemsize == 8 else torch.int32)
