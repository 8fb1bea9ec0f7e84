"""A long clip in pieces that a model may hear: cut where it is quietest."""

from __future__ import annotations

import torch

WINDOW, STEP = 0.1, 0.02  # seconds that are compared, and between them


def cut_at_pauses(samples: torch.Tensor, rate: int, most_seconds: float) -> list[torch.Tensor]:
    """[samples] -> pieces of `most_seconds` at most, in order, that make up the whole.

    Each but the last ends in the middle of the quietest tenth of a second of its second half, so
    that words stay whole where there are pauses between them.
    """
    most, pieces = max(int(most_seconds * rate), 2), []
    while len(samples) > most:
        end = most // 2 + _quietest(samples[most // 2 : most], rate)
        pieces.append(samples[:end])
        samples = samples[end:]
    return [*pieces, samples]


def _quietest(samples: torch.Tensor, rate: int) -> int:
    """The middle of the quietest window, one sample in at least."""
    window, step = min(max(int(WINDOW * rate), 1), len(samples)), max(int(STEP * rate), 1)
    energy = samples.unfold(0, window, step).square().mean(dim=1)
    return max(int(energy.argmin()) * step + window // 2, 1)
