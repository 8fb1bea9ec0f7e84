"""Mixup, CutMix, and mixup of sequences: each sample is mixed with a partner of its own.

A partner out of the same batch would change with every way to cut the batch. So it is drawn from
the dataset, where the sample is loaded: 1 x 32 and 4 x 8 then give the same gradient, with any
number of workers. The price is that a mixed sample loads two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional

from autotrain.blocks.losses import Reading
from autotrain.errors import AutotrainError

How = Literal["mixup", "cutmix"]
TRIES = 4  # partners looked at before a sequence stays as it is


def _draw(count: int, index: int, alpha: float, share: float) -> tuple[float, int] | None:
    """Lambda ~ Beta(alpha, alpha) and a partner; None: this sample is not mixed."""
    if random.random() >= share or alpha <= 0 or count < 2:
        return None
    other = random.randrange(count - 1)
    return random.betavariate(alpha, alpha), other + (other >= index)


def _partner(dataset: Any, index: int) -> Any:
    """That sample, or None where it is damaged: its own turn will name it."""
    try:
        return dataset[index]
    except Exception:
        return None


def _checked(alpha: float, share: float) -> None:
    if not (alpha >= 0 and 0 <= share <= 1):
        raise AutotrainError(
            f"mixing: alpha {alpha:g} and share {share:g}", "alpha from 0, share from 0 to 1"
        )


class Mixed(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """(input, class) samples -> (mixed input, probabilities [classes] in fp32), for training only.

    `mixup` (Zhang 2018): lambda x sample + (1 - lambda) x partner. `cutmix` (Yun 2019): a box of
    the partner's pixels, [..., height, width], over 1 - lambda of the area; the target has the
    share of the area that it really took. `share` of the samples are mixed, the others stay.
    Raises AutotrainError for inputs of several shapes, and for mixup of integers.
    """

    for_training_only = True

    def __init__(
        self, dataset: Any, classes: int, alpha: float = 0.2, *, how: How = "mixup",
        share: float = 1.0,
    ) -> None:  # fmt: skip
        _checked(alpha, share)
        if how not in _WAYS:
            raise AutotrainError(f"mixing: {how!r} is not known", f"one of: {', '.join(_WAYS)}")
        self.dataset, self.classes, self.alpha = dataset, classes, alpha
        self.how: How = how
        self.share = share

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        given, label = self.dataset[index]
        target = self._probabilities(label)
        drawn = _draw(len(self), index, self.alpha, self.share)
        other = None if drawn is None else _partner(self.dataset, drawn[1])
        if drawn is None or other is None:
            return given, target
        if given.shape != other[0].shape:
            raise AutotrainError(
                f"mixing: samples of shape {tuple(given.shape)} and {tuple(other[0].shape)}",
                "bring all inputs to one shape first; sequences: MixedSequences",
            )
        mixed, part = _WAYS[self.how](given, other[0], drawn[0])
        return mixed, part * target + (1 - part) * self._probabilities(other[1])

    def _probabilities(self, label: Any) -> torch.Tensor:
        given = torch.as_tensor(label)
        if given.is_floating_point():
            return given.float()
        if not 0 <= int(given) < self.classes:
            raise AutotrainError(f"mixing: class {int(given)} of {self.classes} classes")
        return functional.one_hot(given.long(), self.classes).float()


def _blend(
    given: torch.Tensor, other: torch.Tensor, part: float
) -> tuple[torch.Tensor, float]:  # fmt: skip
    if not given.is_floating_point():
        raise AutotrainError(
            f"mixing: inputs of {given.dtype}", "mixup needs floats: scale the input first"
        )
    return part * given + (1 - part) * other, part


def _paste(
    given: torch.Tensor, other: torch.Tensor, part: float
) -> tuple[torch.Tensor, float]:  # fmt: skip
    height, width = given.shape[-2:]
    side = (1 - part) ** 0.5
    (top, bottom), (left, right) = _span(height, side), _span(width, side)
    mixed = given.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _span(size: int, side: float) -> tuple[int, int]:
    """A stretch of `side` x size around a random middle, cut off at the edges."""
    half, middle = int(size * side) // 2, random.randrange(size)
    return max(middle - half, 0), min(middle + half, size)


_WAYS: dict[str, Callable[..., tuple[torch.Tensor, float]]] = {"mixup": _blend, "cutmix": _paste}


class Mixture(NamedTuple):
    """Features [time, size] of two sequences; tokens of the first [n], of the other [m].

    `share`: how much of it is the first. Not mixed: 1, and no other tokens.
    """

    features: torch.Tensor
    tokens: torch.Tensor
    other: torch.Tensor
    share: float


class MixedSequences(torch.utils.data.Dataset[Mixture]):
    """(features [time, size], tokens [n]) samples -> Mixture, for training only.

    The partner is stretched in time, linearly, to the sample's own length: all its tokens stay in,
    and a task's `length` stays true. A partner that would be stretched or squeezed more than
    `stretch` times, or whose tokens would have fewer than `frames_per_token` frames each, is
    passed over; after four the sample stays as it is. `share` of the samples are to be mixed.
    """

    for_training_only = True

    def __init__(
        self, dataset: Any, alpha: float = 0.2, *, share: float = 1.0, stretch: float = 2.0,
        frames_per_token: float = 2.0,
    ) -> None:  # fmt: skip
        _checked(alpha, share)
        self.dataset, self.alpha, self.share = dataset, alpha, share
        self.stretch, self.frames_per_token = stretch, frames_per_token

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Mixture:
        features, tokens = self.dataset[index]
        tokens = torch.as_tensor(tokens, dtype=torch.long)
        share = self.share
        for _ in range(TRIES):
            drawn = _draw(len(self), index, self.alpha, share)
            if drawn is None:
                break
            share = 1.0  # chance has said that it shall be mixed; what is left is with whom
            other = _partner(self.dataset, drawn[1])
            if other is not None and self._fits(features, *other):
                mixed = drawn[0] * features + (1 - drawn[0]) * stretched(other[0], len(features))
                aside = torch.as_tensor(other[1], dtype=torch.long)
                return Mixture(mixed, tokens, aside, drawn[0])
        return Mixture(features, tokens, tokens[:0], 1.0)

    def _fits(self, features: torch.Tensor, theirs: torch.Tensor, tokens: Sequence[int]) -> bool:
        ratio = len(features) / max(len(theirs), 1)
        enough = len(features) >= self.frames_per_token * len(tokens)
        return enough and 1 / self.stretch <= ratio <= self.stretch


def stretched(features: torch.Tensor, frames: int) -> torch.Tensor:
    """[time, size] -> [frames, size], interpolated linearly in time."""
    wide = functional.interpolate(features.T[None], size=frames, mode="linear", align_corners=False)
    return wide[0].T


class Utterances(NamedTuple):
    """A batch of sequences with their texts, padded; the second texts where some are mixed.

    `features`: [batch, time, size]; `frames`: [batch]; `tokens`: [batch, longest]; `lengths`:
    [batch]; `other`, `other_lengths` likewise; `share`: [batch], the first text's.
    """

    features: torch.Tensor
    frames: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    other: torch.Tensor | None = None
    other_lengths: torch.Tensor | None = None
    share: torch.Tensor | None = None

    @property
    def readings(self) -> list[Reading]:
        """For `losses.mixed_ctc`: each text of the samples with its share."""
        if self.other is None or self.other_lengths is None or self.share is None:
            return [(self.tokens, self.lengths, None)]
        return [
            (self.tokens, self.lengths, self.share),
            (self.other, self.other_lengths, 1 - self.share),
        ]


def pad_utterances(samples: Sequence[Any]) -> Utterances:
    """A collate for (features [time, size], tokens [n]) samples, and for those of MixedSequences.

    The order of the samples is kept.
    """
    pad = torch.nn.utils.rnn.pad_sequence

    def padded(texts: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [torch.as_tensor(text, dtype=torch.long) for text in texts]
        return pad(rows, batch_first=True), torch.tensor([len(row) for row in rows])

    features = [sample[0] for sample in samples]
    frames = torch.tensor([len(each) for each in features])
    batch = Utterances(pad(features, batch_first=True), frames, *padded([s[1] for s in samples]))
    if not isinstance(samples[0], Mixture) or all(len(s.other) == 0 for s in samples):
        return batch
    other, lengths = padded([sample.other for sample in samples])
    share = torch.tensor([sample.share for sample in samples], dtype=features[0].dtype)
    return batch._replace(other=other, other_lengths=lengths, share=share)
