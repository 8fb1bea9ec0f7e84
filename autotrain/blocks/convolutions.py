"""Convolutions over time that know where a sequence ends: a sample is the same in any batch.

Lanes come first, as torch's convolutions have them: [batch, lanes, time] with a mask [batch, 1,
time], 1 in a sequence and 0 behind it. Padding is 0 before every convolution, norms are of one
frame each, and what looks at a whole sequence counts its own frames.
"""

from __future__ import annotations

import torch
from torch import nn

from autotrain.blocks.losses import inside


def halved(frames: torch.Tensor | int) -> torch.Tensor | int:
    """The frames that a convolution of stride 2 leaves: ceil(frames / 2)."""
    return (frames + 1) // 2


def mask_of(frames: torch.Tensor, time: int) -> torch.Tensor:
    """[batch] -> [batch, 1, time] in fp32: 1 in a sequence, 0 behind it."""
    return inside(frames, time)[:, None].float()


class Convolution(nn.Module):
    """[batch, inputs, time] -> [batch, outputs, ceil(time / stride)]: convolved, normed, shaped.

    `kernel` is odd. The norm is over a frame's lanes (LayerNorm), so that no other frame, and no
    other sample, has a part in it: batches can be cut anywhere. `mask` is of the output.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1,
        shape: type[nn.Module] = nn.Identity,
    ) -> None:  # fmt: skip
        super().__init__()
        self.convolve = nn.Conv1d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.LayerNorm(outputs)
        self.shape = shape()

    def forward(self, given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`given`: 0 in its padding; the result is too."""
        normed = self.norm(self.convolve(given).transpose(1, 2)).transpose(1, 2)
        shaped: torch.Tensor = self.shape(normed) * mask
        return shaped


class SqueezeExcite(nn.Module):
    """[batch, lanes, time] -> the same, each lane by how much the whole sequence wants of it.

    Hu 2018, with the hard sigmoid of MobileNetV3; the mean is over a sequence's own frames.
    """

    def __init__(self, lanes: int, inner: int) -> None:
        super().__init__()
        self.down = nn.Linear(lanes, inner)
        self.up = nn.Linear(inner, lanes)

    def forward(self, given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What stands behind a sequence has no part in its means."""
        mean = (given * mask).sum(dim=2) / mask.sum(dim=2).clamp(min=1)
        gate = nn.functional.hardsigmoid(self.up(self.down(mean).relu()))
        return given * gate[..., None]


class InvertedResidual(nn.Module):
    """[batch, lanes, time] -> the same: widen, convolve each lane alone, excite, narrow, add.

    MobileNetV3's block (Howard 2019) in one dimension, with hard-swish.
    """

    def __init__(self, lanes: int, wide: int, kernel: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.widen = Convolution(lanes, wide, 1, shape=nn.Hardswish)
        self.each = Convolution(wide, wide, kernel, groups=wide, shape=nn.Hardswish)
        self.excite = SqueezeExcite(wide, max(wide // 8, 8))
        self.narrow = Convolution(wide, lanes, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`given`: 0 in its padding; the result is too."""
        excited = self.excite(self.each(self.widen(given, mask), mask), mask)
        added: torch.Tensor = given + self.dropout(self.narrow(excited, mask))
        return added
