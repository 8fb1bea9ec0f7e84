"""Bytes that cuDNN's convolutions use inside, beside their outputs, until they return.

cuDNN tells nobody without a GPU; what is here was read off published peaks of whole runs
(docs/measurements/2026-11-20-gpu-figures.md says how, and how well it fits):

- Tensor cores read channels-last. For tensors stored channels-first, the gradient of the input
  is made from channels-last copies of the output's gradient, the weight, and the result: in half
  precision, and in fp32 (as TF32) on data centres' chips, where that is many times as fast.
- GeForce cards gain nothing from TF32. Without it, a convolution of few pixels is done in another
  domain (Winograd's or Fourier's), where its weight takes SPREAD times the room, both ways.
- 1x1 convolutions are products of matrices, and depthwise ones PyTorch's own kernels: nothing.

Where memory is short cuDNN does with less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Inside = dict[str, Callable[[Any], int]]

# Chips of data centres from Ampere on: fp32 convolutions run on tensor cores, as TF32.
_TF32 = ((8, 0), (9, 0), (10, 0))
# ResNet-50 at batch 10: 162 MiB more without a cap than under one, where its largest weight
# (3x3, 512 to 512 channels) has 9 MiB. Seen at 90 and 450 pixels of output, not at 1,890.
SPREAD, FEW_PIXELS = 18, 512


class _Convolution(NamedTuple):
    """`given` makes `made` with `weight`; shapes as PyTorch stores them, channels first."""

    given: tuple[int, ...]
    made: tuple[int, ...]
    weight: tuple[int, ...]
    groups: int
    item: int  # bytes of an element

    def bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.item

    def plain(self) -> bool:
        """1x1, or depthwise."""
        depthwise = self.groups > 1 and self.groups in (self.given[1], self.made[1])
        return math.prod(self.weight[2:]) == 1 or depthwise


def inside(capability: tuple[int, int]) -> Inside:
    """By operator: a function of its arguments to the bytes it uses inside on such a device."""

    def forward(args: Any) -> int:
        if _channels_last(args[0]):
            return 0
        found = _forward(args)
        # A transposed convolution computes what the other's backward pass does.
        turned = _copies(found, args[0].dtype, capability) if args[6] else 0
        return max(turned, _spread(found, capability))

    def backward(args: Any) -> int:
        gradient, given, weight = args[:3]
        if not args[10][0] or _channels_last(gradient) or _channels_last(given):
            return 0
        shapes = tuple(gradient.shape), tuple(given.shape), tuple(weight.shape)
        found = _Convolution(*shapes, args[9], gradient.element_size())
        turned = 0 if args[7] else _copies(found, gradient.dtype, capability)
        return max(turned, _spread(found, capability))

    return {
        "aten.convolution.default": forward,
        "aten._convolution.default": forward,
        "aten.convolution_backward.default": backward,
    }


def _copies(found: _Convolution, dtype: torch.dtype, capability: tuple[int, int]) -> int:
    if found.plain() or (dtype == torch.float32 and capability not in _TF32):
        return 0
    return sum(found.bytes(shape) for shape in (found.given, found.weight, found.made))


def _spread(found: _Convolution, capability: tuple[int, int]) -> int:
    pixels = min(s[0] * math.prod(s[2:]) for s in (found.given, found.made))
    few = pixels <= FEW_PIXELS and capability not in _TF32
    return SPREAD * found.bytes(found.weight) if few and _dense(found) else 0


def _dense(found: _Convolution) -> bool:
    """Of all channels, over a window of two dimensions."""
    sides = found.weight[2:]
    return found.groups == 1 and len(sides) == 2 and min(sides) > 1


def _forward(args: Any) -> _Convolution:
    """From the arguments of `aten.convolution`."""
    given, weight, turned, groups = args[0], args[1], bool(args[6]), int(args[8])
    sides = []
    for i, side in enumerate(given.shape[2:]):
        stride, pad, apart, more = (args[k][i if len(args[k]) > 1 else 0] for k in (3, 4, 5, 7))
        reach = apart * (weight.shape[2 + i] - 1)
        if turned:
            sides.append((side - 1) * stride - 2 * pad + reach + more + 1)
        else:
            sides.append((side + 2 * pad - reach - 1) // stride + 1)
    channels = weight.shape[1] * groups if turned else weight.shape[0]
    made = (given.shape[0], channels, *sides)
    return _Convolution(tuple(given.shape), made, tuple(weight.shape), groups, given.element_size())


def _channels_last(tensor: torch.Tensor) -> bool:
    return (
        tensor.dim() == 4
        and tensor.is_contiguous(memory_format=torch.channels_last)
        and not tensor.is_contiguous()
    )
