"""What a task's own datasets are, from a few samples."""

import time

import numpy as np
import pytest
import torch
from steps import HERE, Rows, classifier, mlp, opened

from autotrain.probe import task_data
from autotrain.probe.task_data import load_samples, task_dataset, traits
from autotrain.task import Task


def profile(task):
    return task_dataset(task, load_samples(task, HERE)[0], "data")


def test_counts_and_a_fingerprint_that_is_the_same_the_next_time():
    first, again = profile(classifier(mlp, 64)), profile(classifier(mlp, 64))
    assert first == again
    assert (first.count, first.kind, first.root) == (64, "task", "data")
    assert first.took_for == "the task's own dataset, of which some will validate"


def test_other_content_other_counts_and_other_shapes_are_other_data():
    changed = classifier(mlp, 64)
    changed.train.inputs[0, 0] += 1
    others = [changed, classifier(mlp, 64, count=65), classifier(mlp, 8, 8)]
    prints = {profile(task).fingerprint for task in (classifier(mlp, 64), *others)}
    assert len(prints) == 4


PLAIN = {"a": torch.tensor(3), "b": (torch.ones(2, dtype=torch.bfloat16), 7), "c": "text"}


@pytest.mark.parametrize(
    "other",
    [
        PLAIN | {"c": "other"},
        PLAIN | {"b": (torch.ones(2, dtype=torch.bfloat16), 8)},
        PLAIN | {"a": torch.tensor(4)},
        PLAIN | {"a": np.ones(3)},
        PLAIN | {"a": [True, None, 2.5, b"x"]},
        PLAIN | {"d": object()},
    ],
)
def test_whatever_a_sample_holds_takes_part_in_the_fingerprint(other):
    def fingerprint(sample):
        return task_dataset(classifier(mlp, 64), [sample], None).fingerprint

    assert fingerprint(PLAIN) == fingerprint(dict(PLAIN)) != fingerprint(other)


def test_loading_is_timed_when_what_the_dataset_keeps_is_there():
    seen = set()

    class Keeps(Rows):
        def __getitem__(self, index):
            if index not in seen:
                time.sleep(0.01)
                seen.add(index)
            return super().__getitem__(index)

    task = classifier(mlp, 64)
    object.__setattr__(task, "train", Keeps(64))
    assert opened(task).sample_seconds < 0.005


class Drawing(Rows):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.randn(()), y


class Counting(Rows):
    """Another sample at each reading, without a random number."""

    times = 0

    def __getitem__(self, index):
        self.times += 1
        return super().__getitem__(index)[0] + self.times, 0


class Named(Rows):
    def __getitem__(self, index):
        return *super().__getitem__(index), f"row {index}"


class Ragged(Rows):
    def __getitem__(self, index):
        return torch.ones(index + 1)


@pytest.mark.parametrize(
    ("dataset", "more", "stack"),
    [
        (Rows(64), {}, True),
        (Rows(3, 8, 8, count=5), {}, True),
        ([{"x": np.ones(3), "y": 1, "z": (2.0, True)}] * 9, {}, True),
        (Rows(64), {"collate": torch.utils.data.default_collate}, False),
        (Rows(64), {"length": float}, False),
        *((kind(64), {}, False) for kind in (Drawing, Counting, Named, Ragged)),
    ],
)
def test_samples_stack_where_torch_makes_the_same_tensors_of_them_each_time(dataset, more, stack):
    task = Task(model=mlp, train=dataset, valid=None, loss=None, **more)
    found = traits(task, HERE, load_samples(task, HERE)[0].samples)
    assert found["stacks"] is stack
    assert found["steady"] is not (dataset.__class__ in (Drawing, Counting))


class Pictures(torch.utils.data.Dataset):
    """Of the same size but for a few, which are none of the first that are read."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.asked = []

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        self.asked.append(index)
        if self.sizes[index] is None:
            raise OSError("torn")
        return torch.ones(1, 8, self.sizes[index]), 0


def of_sizes(sizes):
    return Task(model=None, loss=None, train=Pictures(sizes))


def test_where_samples_differ_in_size_the_largest_of_many_are_planned_with():
    sizes = [10 + index % 7 for index in range(200)]
    sizes[33], sizes[34], sizes[101] = 400, None, 300
    task = of_sizes(sizes)
    found = task_data.opened(task, HERE, None)
    widths = sorted((image.shape[-1] for image, _ in found.samples), reverse=True)
    assert widths[:2] == [400, 300]
    assert len(widths) == 8
    assert found.traits["uneven"]
    assert [image.shape[-1] for image, _ in found.first] == [sizes[i * 25] for i in range(8)]


def test_where_samples_are_alike_no_more_of_them_are_looked_at():
    task = of_sizes([10] * 2000)
    found = task_data.opened(task, HERE, None)
    assert found.samples is found.first
    assert not found.traits["uneven"]
    assert len({*task.train.asked}) < 50


def test_slow_samples_are_looked_at_for_a_second_and_no_longer(monkeypatch):
    task = of_sizes([10 + index % 7 for index in range(2000)])
    monkeypatch.setattr(task_data, "_LOOKING_SECONDS", 0.0)
    task_data.opened(task, HERE, None)
    assert len({*task.train.asked}) < 50
