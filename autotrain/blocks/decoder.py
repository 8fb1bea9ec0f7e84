"""The writing half of a recogniser: unit after unit, with attention to what an encoder heard."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from autotrain.blocks.conformer import sines
from autotrain.blocks.losses import inside
from autotrain.blocks.units import END
from autotrain.supervised import IGNORED


class AttentionDecoder(nn.Module):
    """Transformer decoder (Vaswani 2017, norms first) over `count` units, blank and end included.

    Nothing that is written depends on what comes after it, nor on padding of either kind.
    """

    def __init__(
        self, count: int, width: int = 144, layers: int = 2, heads: int = 4, *,
        inner: int = 0, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(count, width)
        self.dropped = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, heads, inner or 4 * width, dropout, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, count)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(
        self, written: torch.Tensor, heard: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """[batch, written] units, END first, and [batch, frames, width] of which `lengths` [batch]
        count -> logits [batch, written, count] of what follows each."""
        length = written.shape[1]
        vectors = self.embedding(written) * self.width**0.5
        vectors = self.dropped(vectors + sines(length, self.width, vectors))
        later = torch.ones(length, length, dtype=torch.bool, device=written.device).triu(1)
        padding = ~inside(lengths, heard.shape[1])
        for layer in self.layers:
            vectors = layer(
                vectors, heard, tgt_mask=later, memory_key_padding_mask=padding, tgt_is_causal=True
            )
        logits: torch.Tensor = self.out(self.norm(vectors))
        return logits


def taught(texts: Sequence[Sequence[int]], multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Units of several texts -> what a decoder is given and what it should answer: both [batch,
    longest + 1]; the first begins with END, the second ends with it, -100 behind it.

    Their length is rounded up to a `multiple`: see `audio.pad_frames`.
    """
    given = [torch.tensor([END, *text]) for text in texts]
    aims = [torch.tensor([*text, END]) for text in texts]
    return _padded(given, END, multiple), _padded(aims, IGNORED, multiple)


def _padded(rows: Sequence[torch.Tensor], value: int, multiple: int) -> torch.Tensor:
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    return functional.pad(padded, (0, -padded.shape[1] % multiple), value=value)
