"""Chance in the training samples only: a dataset with a transform, and what to hold out first.

All chance is drawn where a sample is loaded. There every generator has just been seeded from the
run's seed, the epoch and the sample's index, so what is drawn depends neither on the batch, nor
on how it is cut, nor on the workers. A draw in the collate or in the loss would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from autotrain.task import hold_out, subset


class Augmented(torch.utils.data.Dataset[Any]):
    """A dataset whose samples go through `transform`, for training only.

    `first`: the transform is given the first part of each sample (the input of an (input,
    target) pair); False: all of it.
    """

    for_training_only = True

    def __init__(self, dataset: Any, transform: Callable[[Any], Any], *, first: bool = True):
        self.dataset, self.transform, self.first = dataset, transform, first

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[index]
        if not self.first:
            return self.transform(sample)
        given, *rest = sample
        return (self.transform(given), *rest)


def held_out(dataset: Any, valid_share: float = 0.2, seed: int = 0) -> tuple[Any, Any]:
    """(train, valid) views of a dataset, before one of them is augmented; the same every time.

    Raises AutotrainError for fewer than two samples.
    """
    train, valid = hold_out(len(dataset), valid_share, seed)
    return subset(dataset, train), subset(dataset, valid)
