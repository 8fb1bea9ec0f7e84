"""Whether a dataset keeps what it has read is seen from below, whatever it keeps it in."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autotrain.probe import keeping
from autotrain.probe.keeping import kept_of_each
from autotrain.probe.task_data import opened
from autotrain.task import Loss, Task

IMAGE = 3 * 32 * 32 * 4
pytestmark = pytest.mark.skipif(keeping.allocated() is None, reason="glibc's malloc tells")


class Data(torch.utils.data.Dataset):
    """1,000 samples, those read before in `kept`."""

    def __init__(self):
        self.kept = {}

    def __len__(self):
        return 1000

    def remembered(self, index, make):
        if index not in self.kept:
            self.kept[index] = make()
        return self.kept[index]


class Images(Data):
    def __getitem__(self, index):
        return self.remembered(index, lambda: torch.randn(3, 32, 32)), index % 10


class Arrays(Data):
    def __getitem__(self, index):
        return self.remembered(index, lambda: np.random.rand(random.randint(30, 60), 64))


class Tokens(Data):
    """Lists of Python's numbers, which lie in pools of its own."""

    def __getitem__(self, index):
        words = self.remembered(index, lambda: [random.randint(999, 50_000) for _ in range(300)])
        return torch.tensor(words)


class Decorated(Data):
    @functools.lru_cache(None)  # noqa: B019
    def __getitem__(self, index):
        return torch.randn(3, 32, 32)


class Plain(Data):
    def __getitem__(self, index):
        return torch.randn(3, 32, 32)


class AllThere(Data):
    def __init__(self):
        self.images = torch.randn(1000, 3, 32, 32)

    def __getitem__(self, index):
        return self.images[index]


class Newest(Data):
    """Only the sample that was read last, each of another size."""

    def __getitem__(self, index):
        self.newest = torch.randn(3, random.randint(10, 100), 32)
        return self.newest


class Few(Data):
    @functools.lru_cache(2)  # noqa: B019
    def __getitem__(self, index):
        return torch.randn(3, 32, 32)


def found(kind, size=IMAGE):
    dataset = kind()
    for index in range(8):
        dataset[index]
    return kept_of_each(dataset, range(100, 130), size, 1e-4)


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        (Images, IMAGE, 1.1 * IMAGE), (Arrays, 30 * 512, 60 * 512), (Tokens, 10_000, 40_000),
        (Decorated, IMAGE, 1.1 * IMAGE),
    ],
)  # fmt: skip
def test_what_stays_of_a_sample_is_told(kind, least, most):
    assert least <= found(kind) <= most


@pytest.mark.parametrize("kind", [Plain, AllThere, Newest, Few])
def test_a_dataset_that_keeps_nothing_more_has_nothing_told_of_it(kind):
    assert [found(kind) for _ in range(5)] == [0.0] * 5


def test_slow_samples_are_not_read_for_it():
    dataset = Images()
    assert kept_of_each(dataset, range(100), IMAGE, sample_seconds=0.2) == 0.0
    assert not dataset.kept


def a_task(train, valid=None):
    return Task(model=lambda: nn.Linear(1, 1), train=train, valid=valid, loss=Loss)


def test_a_plan_learns_what_all_samples_would_take():
    known = opened(a_task(Images(), Images()), Path("task.py"), None).traits
    assert 2000 * IMAGE <= known["cached_bytes"] <= 1.1 * 2000 * IMAGE
    assert known["kept_bytes"] == 0


def test_a_sample_that_cannot_be_read_is_the_runs_business():
    class Holed(Images):
        def __getitem__(self, index):
            if index % 125:  # the first few that are read are multiples of it
                raise OSError("torn")
            return super().__getitem__(index)

    found = opened(a_task(Holed()), Path("task.py"), None)
    assert len(found.samples) == 8
    assert found.traits["cached_bytes"] == 0
