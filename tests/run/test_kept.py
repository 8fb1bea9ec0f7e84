"""Samples that stay in memory: only where that changes nothing but the time."""

import dataclasses

import numpy
import pytest
import torch

from autotrain.events import Evaluated, Step
from autotrain.run.loading.kept import Kept, bytes_of, copied, same
from autotrain.run.loop import train
from autotrain.task import Task

from .plans import make_plan
from .tasks import Noisy, NoisyNet


class Counted(torch.utils.data.Dataset):
    """Counts its readings; `extra` may add something to a sample."""

    def __init__(self, count, extra=None):
        self.count, self.extra, self.read = count, extra, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        if self.extra is not None:
            x = x + self.extra()
        return x, int(x.sum() > 0)


def figures(task, directory, keep, **plan):
    directory.mkdir()
    (directory / "task.py").touch()
    plan = make_plan(loader={"keep": keep}, **plan)
    events = train(plan, task, directory, task_file=directory / "task.py")
    return [(e.step, e.loss) for e in events if isinstance(e, Step | Evaluated)]


def both(dataset, directory, **more):
    """Figures without and with keeping; what was read with it."""
    task = Task.classification(model=NoisyNet, train=dataset, valid=Noisy(9), **more)
    without = figures(task, directory / "without", None)
    dataset.read.clear()
    return without, figures(task, directory / "with", "ram"), dataset.read


def test_each_sample_is_read_once_in_a_run(tmp_path):
    """But for those that prove that two readings agree; the figures stay."""
    without, kept, read = both(Counted(40), tmp_path)
    assert kept == without
    assert len(read) == 40 + 8
    assert set(read) == set(range(40))


@pytest.mark.parametrize(
    "draw", [lambda: torch.randn(6), numpy.random.rand, lambda: torch.rand(()).item()]
)
def test_samples_with_draws_are_read_each_time(tmp_path, draw):
    """The augmentation of each epoch is its own, as without keeping."""
    without, kept, read = both(Counted(40, draw), tmp_path)
    assert kept == without
    assert len(read) >= 3 * 40


def test_samples_that_change_by_a_generator_of_their_own_are_read_each_time(tmp_path):
    """Two readings differ: nothing else could tell."""
    own = numpy.random.default_rng(5)
    _, _, read = both(Counted(40, lambda: float(own.random())), tmp_path)
    assert len(read) >= 3 * 40


def test_a_collate_that_changes_its_samples_does_not_change_what_is_kept(tmp_path):
    def doubled(samples):
        for x, _ in samples:
            x.mul_(2)
        return torch.utils.data.default_collate(samples)

    without, kept, read = both(Counted(40), tmp_path, collate=doubled)
    assert kept == without
    assert len(read) == 48


def test_samples_of_a_kind_that_cannot_be_copied_are_read_each_time(tmp_path):
    @dataclasses.dataclass
    class Own:
        x: torch.Tensor

    class Wrapped(Counted):
        def __getitem__(self, index):
            return Own(super().__getitem__(index)[0])

    def unwrapped(samples):
        if isinstance(samples[0], tuple):  # of the validation set
            return torch.utils.data.default_collate(samples)
        x = torch.stack([sample.x for sample in samples])
        return x, (x.sum(dim=1) > 0).long()

    without, kept, read = both(Wrapped(40), tmp_path, collate=unwrapped)
    assert kept == without
    assert len(read) >= 3 * 40


def test_no_more_is_kept_than_there_is_room_for():
    kept = Kept(room=3 * bytes_of(torch.zeros(100)))
    for index in range(6):
        kept.offer(
            False, index, torch.full((100,), float(index)), lambda i: torch.full((100,), float(i))
        )
    found = [kept.find(False, index) for index in range(6)]
    assert [value is not None for value in found] == [True] * 3 + [False] * 3
    assert float(found[2][0]) == 2.0


@pytest.mark.parametrize(
    "missing",
    [float("nan"), numpy.float64("nan"), numpy.array([1, numpy.nan]), torch.tensor(torch.nan)],
)
def test_what_is_missing_is_missing_the_next_time(missing):
    """NaN is unequal to itself, and yet the same sample."""
    assert same((missing, 1), copied((missing, 1)))
    assert not same((missing, 1), (copied(missing), 2))


def test_a_copy_shares_nothing_and_equals():
    item = ({"a": torch.arange(3), "b": [numpy.ones(2), "text", None]}, 1.5, True)
    copy = copied(item)
    assert same(item, copy)
    copy[0]["a"][0] = 9
    copy[0]["b"][0][0] = 9
    assert item[0]["a"][0] == 0
    assert item[0]["b"][0][0] == 1
    assert not same(item, copy)
    assert not same(1, 1.0)
    assert not same((1, 2), [1, 2])
    with pytest.raises(TypeError):
        copied(object())
