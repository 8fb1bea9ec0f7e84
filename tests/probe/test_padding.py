"""In how many sizes batches come: few where a collate rounds up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autotrain.probe.lengths import Lengths, read_lengths
from autotrain.probe.padding import sizes
from autotrain.task import Task


class Ramps:
    """As many samples as lengths: of 1, 2, 3, ... rows of four numbers, and as many labels."""

    def __init__(self, count: int = 200, broken: int = -1) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == self.broken:
            raise ValueError("torn")
        return torch.ones(index + 1, 4), torch.ones(index + 1, dtype=torch.int64)


def task(multiple: int, data: Ramps | None = None, *, told: bool = True) -> Task:
    def collate(samples):
        rows = max(len(each) for each, _ in samples)
        rows += -rows % multiple
        padded = [nn.functional.pad(each, (0, 0, 0, rows - len(each))) for each, _ in samples]
        return torch.stack(padded), [labels for _, labels in samples]

    data = data or Ramps()
    length = (lambda index: float(index + 1)) if told else None
    return Task(
        model=lambda: nn.Linear(4, 1), train=data, loss=None, collate=collate, length=length
    )


def known(of: Task, tmp_path) -> Lengths | None:
    return read_lengths(of, tmp_path / "task.py", len(of.train))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("multiple", "several"), [(1, 0), (10, 20), (50, 4), (200, 1)])
def test_rounding_up_makes_few(tmp_path, multiple, several, told):
    """Labels, as long as each sample is, do not count: the largest tensor does."""
    of = task(multiple, told=told)
    assert sizes(of, known(of, tmp_path), 1e-4) == several


def test_of_slow_samples_few_are_read_and_of_too_few_nothing_is_said(tmp_path):
    of = task(50)
    lengths = known(of, tmp_path)
    assert sizes(of, lengths, 0.05) == 4
    assert sizes(of, lengths, 0.2) == 0


def test_a_torn_sample_is_passed_over(tmp_path):
    of = task(50, Ramps(broken=199))  # the longest
    assert sizes(of, known(of, tmp_path), 1e-4) == 4
