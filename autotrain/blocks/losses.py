"""Losses of sequences as sums with their weight: label-smoothed cross-entropy and CTC."""

from __future__ import annotations

import torch
from torch.nn import functional

from autotrain.supervised import IGNORED
from autotrain.task import Loss, precise


def inside(lengths: torch.Tensor, longest: int | torch.Tensor) -> torch.Tensor:
    """[batch] -> [batch, longest], True where a sequence has an element and no padding."""
    # A tensor of one number does too, and a trace follows it.
    return torch.arange(longest, device=lengths.device) < lengths[:, None]  # type: ignore[arg-type]


def sequence_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    kept: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> Loss:
    """Cross-entropy over the tokens that are kept; its weight is how many they are.

    `logits`: [..., classes]. `targets`: [...] class indices. `kept`: [...], False on padding;
    a target of -100 is left out as well. `smoothing` spreads that much of each target over all
    classes (Szegedy 2016); `smoothing=0.1 * model.training` leaves validation as it is.
    """
    aims = targets if kept is None else targets.masked_fill(~kept, IGNORED)
    total = functional.cross_entropy(
        precise(logits).flatten(0, -2),
        aims.flatten(),
        reduction="sum",
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )
    return Loss(total=total, weight=(aims != IGNORED).sum())


def smoothed_ctc(
    logits: torch.Tensor,
    frames: torch.Tensor,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    *,
    smoothing: float = 0.0,
    blank: int = 0,
) -> Loss:
    """CTC with label smoothing; its weight is the number of tokens.

    `logits`: [batch, time, classes], of which sample i has `frames[i]`. `tokens`: [batch,
    longest], of which it has `lengths[i]`. Per sequence the loss is (1 - smoothing) x CTC +
    smoothing x tokens x the mean over its frames of KL(uniform || model), so that `smoothing`
    means the same at any frame rate (after Kim 2018, who sums over the frames).

    A sequence with fewer frames than its tokens need (one each, and a blank between equal
    neighbours) has no alignment: it counts nowhere, and its tokens are the part `too_short`.
    """
    return mixed_ctc(logits, frames, [(tokens, lengths, None)], smoothing=smoothing, blank=blank)


Reading = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def mixed_ctc(
    logits: torch.Tensor,
    frames: torch.Tensor,
    readings: list[Reading],
    *,
    smoothing: float = 0.0,
    blank: int = 0,
) -> Loss:
    """`smoothed_ctc` where a sample has several texts, each with its share of the loss.

    `readings`: (tokens [batch, longest], lengths [batch], share [batch]) each; a share of None
    is 1. A sample's weight is what its shares of its texts' lengths add up to. This is what
    `Utterances.readings` gives for a batch of mixed sequences (autotrain.blocks.mixing).
    """
    log_probs = precise(logits).log_softmax(dim=-1)
    frames = frames.to(log_probs.device)
    items = torch.zeros_like(log_probs[:, 0, 0])
    likely, too_short = items.sum(), items.sum()
    for tokens, lengths, share in readings:
        mine = torch.ones_like(items) if share is None else share.to(items)
        fits = frames >= _frames_needed(tokens, lengths)
        each = functional.ctc_loss(
            log_probs.transpose(0, 1), tokens, frames, lengths,
            blank=blank, reduction="none", zero_infinity=True,
        )  # fmt: skip
        likely = likely + (mine * each).sum()
        items = items + mine * fits * lengths
        too_short = too_short + (mine * ~fits * lengths).sum()
    parts = {"ctc": likely, "too_short": too_short}
    total = likely
    if smoothing > 0:
        parts["uniform"] = (items * _from_uniform(log_probs, frames)).sum()
        total = (1 - smoothing) * likely + smoothing * parts["uniform"]
    return Loss(total=total, weight=items.sum(), parts=parts)


def _frames_needed(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[batch]: one for each token, and one for the blank between two that are equal."""
    pairs = inside(lengths - 1, max(tokens.shape[1] - 1, 0))
    return lengths + ((tokens[:, 1:] == tokens[:, :-1]) & pairs).sum(dim=1)


def _from_uniform(log_probs: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """[batch]: the mean over a sequence's frames of KL(uniform || model), in nats."""
    classes = log_probs.new_tensor(float(log_probs.shape[-1]))
    each = -log_probs.mean(dim=-1) - classes.log()
    kept = inside(frames, log_probs.shape[1])
    return each.masked_fill(~kept, 0.0).sum(dim=1) / frames.clamp(min=1)
