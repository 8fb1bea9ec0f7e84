"""What FastSpeech 2 is made of (Ren 2019 and 2020), in parts that know where a sequence ends.

Vectors are [batch, time, width] with `kept` [batch, time], False on padding. Padding is 0 before
every convolution and no key of attention, norms are over one vector: whatever stands behind a
sequence, and beside it in its batch, reaches none of it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from autotrain.blocks.conformer import sines
from autotrain.errors import AutotrainError


class Near(nn.Module):
    """[batch, time, inputs] -> [batch, time, outputs]: a convolution over `kernel` neighbours."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """What is given for the padding does not matter."""
        lanes = (vectors * kept[..., None]).transpose(1, 2)
        mixed: torch.Tensor = self.convolve(lanes).transpose(1, 2)
        return mixed


def attended(
    attention: nn.MultiheadAttention, vectors: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """What each of the vectors hears of those that are kept, as `attention` itself has it. A trace
    of it holds for other lengths; torch's own forward keeps those of its trace."""
    packed = functional.linear(vectors, attention.in_proj_weight, attention.in_proj_bias)
    many, time = packed.shape[:2]
    asked, key, value = (
        part.reshape(many, time, attention.num_heads, -1).transpose(1, 2)
        for part in packed.chunk(3, 2)
    )
    heard = functional.scaled_dot_product_attention(
        asked, key, value, kept[:, None, None],
        dropout_p=attention.dropout if attention.training else 0.0,
    )  # fmt: skip
    mixed: torch.Tensor = attention.out_proj(heard.transpose(1, 2).flatten(2))
    return mixed


class FeedForwardBlock(nn.Module):
    """Attention to the whole sequence, then a convolution in place of the usual linear layer.

    Norms come first (Xiong 2020), which trains without a long warm-up; Ren's come last.
    """

    def __init__(self, width: int, heads: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.between = nn.LayerNorm(width)
        self.widen = Near(width, inner, kernel)
        self.narrow = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """[batch, time, width] -> the same."""
        asked = self.before(vectors)
        vectors = vectors + self.dropout(attended(self.attention, asked, kept))
        wide = self.widen(self.between(vectors), kept).relu()
        mixed: torch.Tensor = vectors + self.dropout(self.narrow(wide))
        return mixed


class FeedForwards(nn.Module):
    """[batch, time, width] -> the same: where each vector stands, `blocks` blocks, and a norm.

    Raises AutotrainError for an even kernel, or a width that is odd or that the heads do not
    divide.
    """

    def __init__(
        self, width: int, blocks: int, heads: int, inner: int, kernel: int, dropout: float
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or width % 2 or width % heads:
            raise AutotrainError(
                f"feed-forward blocks: width {width}, {heads} heads, kernel {kernel}",
                "an odd kernel, and an even width that the heads divide",
            )
        self.width = width
        self.blocks = nn.ModuleList(
            FeedForwardBlock(width, heads, inner, kernel, dropout) for _ in range(blocks)
        )
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """0 on the padding."""
        vectors = self.dropout(vectors + sines(vectors.shape[1], self.width, vectors))
        for block in self.blocks:
            vectors = block(vectors, kept)
        normed: torch.Tensor = self.norm(vectors) * kept[..., None]
        return normed


class VariancePredictor(nn.Module):
    """[batch, time, width] -> [batch, time]: one figure of each, by two convolutions; 0 on the
    padding."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Near(width, width, kernel) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """What is given for the padding does not matter."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            vectors = self.dropout(norm(layer(vectors, kept).relu()))
        figures: torch.Tensor = self.out(vectors)[..., 0] * kept
        return figures


def regulated(
    vectors: torch.Tensor, durations: torch.Tensor, time: int | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The length regulator: [batch, phonemes, width], each as often as `durations` [batch,
    phonemes] says -> [batch, time, width], and where each frame stands in its phoneme [batch, time,
    2]: the share of it that has passed, and the logarithm of 1 + its frames. 0 behind the last.

    Each sample's durations add up to `time` at most (a tensor [] where it was computed of them, so
    that an exported model finds it itself); one of 0 has no frame. That a frame knows its place is
    of Shen 2020 (Non-Attentive Tacotron).
    """
    ends = durations.cumsum(dim=1)
    at = torch.arange(time, device=durations.device)[None]  # type: ignore[arg-type]
    found = (ends[:, None] <= at[..., None]).sum(dim=2)  # searchsorted, which ONNX has not
    there = (found < durations.shape[1])[..., None]
    place = found.clamp(max=durations.shape[1] - 1)
    lasts, left = durations.gather(1, place), ends.gather(1, place) - at
    passed = 1 - (left - 0.5) / lasts.clamp_min(1)
    stands = torch.stack([passed, lasts.float().log1p()], dim=-1).to(vectors.dtype)
    picked = vectors.gather(1, place[..., None].expand(-1, -1, vectors.shape[2]))
    return picked * there, stands * there
