"""Conformer (Gulati 2020) whose padding is never heard.

torchaudio's forgets the mask in its convolutions: what a clip's last frames become depends on how
much padding follows. Here padding is zero wherever frames meet: before each convolution, and in
the keys of attention. Norms are over features of one frame, so nothing ties a batch together.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from autotrain.blocks.losses import inside
from autotrain.errors import AutotrainError


class Subsampling(nn.Module):
    """[batch, frames, features] -> [batch, ceil(frames / 4), width]: two convolutions, stride 2."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width // 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width // 4, width // 4, 3, stride=2, padding=1)
        self.out = nn.Linear(width // 4 * _quarter(features), width)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Also the lengths [batch], a quarter, rounded up."""
        mixed = features[:, None]
        for convolution in (self.first, self.second):
            mixed = mixed * inside(lengths, mixed.shape[2])[:, None, :, None]
            mixed = functional.relu(convolution(mixed))
            lengths = (lengths + 1) // 2
        return self.out(mixed.transpose(1, 2).flatten(2)), lengths


def _quarter(count: int) -> int:
    return (count + 3) // 4


class Convolution(nn.Module):
    """[batch, frames, width] -> the same: a gate, `kernel` neighbours of each channel, a norm."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.near = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.after = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, frames: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """`kept`: [batch, frames], False on padding."""
        gated = functional.glu(self.gate(self.before(frames)), dim=-1) * kept[..., None]
        near = self.near(gated.transpose(1, 2)).transpose(1, 2)
        mixed: torch.Tensor = self.out(self.after(near))
        return mixed


def _forward_layer(width: int, inner: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, inner), nn.SiLU(), nn.Dropout(dropout),
        nn.Linear(inner, width), nn.Dropout(dropout),
    )  # fmt: skip


class Block(nn.Module):
    """[batch, frames, width] -> the same: half a feed-forward, attention, convolution, the other
    half, a norm."""

    def __init__(self, width: int, heads: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.first = _forward_layer(width, inner, dropout)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.dropped = nn.Dropout(dropout)
        self.convolution = Convolution(width, kernel, dropout)
        self.second = _forward_layer(width, inner, dropout)
        self.last = nn.LayerNorm(width)

    def forward(self, frames: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """`kept`: [batch, frames], False on padding."""
        frames = frames + 0.5 * self.first(frames)
        asked = self.norm(frames)
        heard, _ = self.attention(asked, asked, asked, key_padding_mask=~kept, need_weights=False)
        frames = frames + self.dropped(heard)
        frames = frames + self.convolution(frames, kept)
        frames = frames + 0.5 * self.second(frames)
        done: torch.Tensor = self.last(frames)
        return done


class Conformer(nn.Module):
    """[batch, frames, features] and lengths [batch] -> [batch, ceil(frames / 4), width] and theirs.

    Every frame that is not padding comes out as it would alone in its batch. Positions are sines
    (Vaswani 2017): any length works. Raises AutotrainError for an even kernel, or a width that
    the heads do not divide.
    """

    def __init__(
        self, features: int, width: int = 144, blocks: int = 4, heads: int = 4, *,
        inner: int = 0, kernel: int = 15, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if kernel % 2 == 0 or width % (4 * heads if width % 4 else heads) or width % 4:
            raise AutotrainError(
                f"Conformer: width {width}, {heads} heads, kernel {kernel}",
                "an odd kernel, and a width that 4 and the heads divide",
            )
        self.width = width
        self.subsampling = Subsampling(features, width)
        self.dropped = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, inner or 4 * width, kernel, dropout) for _ in range(blocks)
        )

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`lengths`: [batch], 1 at least, on the features' device."""
        frames, lengths = self.subsampling(features, lengths)
        kept = inside(lengths, frames.shape[1])
        frames = self.dropped(frames + sines(frames.shape[1], self.width, frames))
        for block in self.blocks:
            frames = block(frames, kept)
        return frames * kept[..., None], lengths


def sines(length: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """[length, width] of sines and cosines of falling frequency, on the device of `like`."""
    at = torch.arange(length, device=like.device, dtype=torch.float32)[:, None]
    falling = torch.arange(0, width, 2, device=like.device, dtype=torch.float32)
    angles = at * torch.exp(falling * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)
