"""Samples of the right form and of no meaning, for a model whose data may be gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Sample = TypeVar("Sample")
COUNT = 10


class Invented(torch.utils.data.Dataset[Sample], Generic[Sample]):
    """Index -> `make(index)`, `count` of them; each draws from a seed of its own, so that the same
    index is the same sample again. Let sizes that vary in the data vary with the index."""

    def __init__(self, make: Callable[[int], Sample], count: int = COUNT) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            return self.make(index)
