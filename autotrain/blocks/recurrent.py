"""Recurrent layers that know where a sequence ends."""

from __future__ import annotations

import torch
from torch import nn

from autotrain.blocks.losses import inside


def turned(sequences: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """[batch, time, size]: each sequence backwards within its own `frames`, padding behind it."""
    time = sequences.shape[1]  # and no len(): a trace would keep that as a number
    at = torch.arange(time, device=sequences.device)
    ends = frames.to(at.device)[:, None]
    place = torch.where(inside(ends[:, 0], time), ends - 1 - at, at)
    return sequences.gather(1, place[..., None].expand_as(sequences))


class BiLSTM(nn.Module):
    """[batch, time, inputs] with each sequence's frames [batch] -> [batch, time, 2 x width].

    What stands in the padding reaches no frame: one LSTM reads a sequence forwards, the other a
    turned one, so both meet the padding last. Nothing has to be packed, sorted, or known to the
    host. Dropout between layers.
    """

    def __init__(self, inputs: int, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [inputs, *[2 * width] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(n, width, batch_first=True) for n in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(n, width, batch_first=True) for n in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequences: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """What is given for the padding does not matter, nor what comes out there."""
        for place, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            given = self.dropout(sequences) if place else sequences
            there, _ = ahead(given)
            again, _ = back(turned(given, frames))
            sequences = torch.cat([there, turned(again, frames)], dim=-1)
        return sequences
