"""Samples on their way to the loop: workers, spawn, and what goes wrong with them."""

import dataclasses
import textwrap

import pytest
import torch

from autotrain.errors import AutotrainError
from autotrain.run.loading import data
from autotrain.run.loading.itinerary import Request
from autotrain.run.loading.source import Source
from autotrain.run.loop import train
from autotrain.task import Loss, Task, load_task

from .faulty import failing, named, regression, run
from .plans import make_plan
from .tasks import noisy_task, sequence_task

TASK_FILE = textwrap.dedent(
    """
    import random
    import torch
    from autotrain import Task

    class Squares(torch.utils.data.Dataset):
        def __len__(self):
            return 24
        def __getitem__(self, index):
            x = torch.full((3,), float(index)) + torch.rand(3) + random.random()
            return x, x.sum() ** 2 / 1000

    def batch(samples):
        return [torch.stack(part) for part in zip(*samples)]

    def task(data):
        squares = Squares()
        return Task.regression(model=lambda: torch.nn.Linear(3, 1), train=squares, collate=batch)
    """
)


def losses(plan, task, directory, task_file=None):
    file = task_file or directory / "task.py"
    return [e.loss for e in train(plan, task, directory, task_file=file) if hasattr(e, "loss")]


def with_warning_free_target(task):
    def loss(model, batch):
        return task.loss(model, (batch[0], batch[1].unsqueeze(1)))

    return dataclasses.replace(task, loss=loss)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_workers_load_a_task_file_by_path(tmp_path, method, monkeypatch):
    """Its dataset and its collate exist nowhere but in that file; figures stay the same.

    What lies in the folder where the command is typed is nobody's code.
    """
    file = tmp_path / "my_task.py"
    file.write_text(TASK_FILE)
    for name in ("multiprocessing", "torch", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    found = []
    for loader in ({"workers": 0}, {"workers": 1, "start_method": method}):
        task = with_warning_free_target(load_task(file, None, {}))
        plan = make_plan(loader=loader, train={"epochs": 1})
        found.append(losses(plan, task, tmp_path / str(loader["workers"]), file))
    assert found[0] == found[1]
    assert len(found[0]) > 2
    assert not (tmp_path / "ran").exists()


def test_what_cannot_travel_to_a_spawned_worker_is_named(tmp_path):
    """The hint says where to define it."""
    (tmp_path / "task.py").touch()
    task = noisy_task(collate=lambda samples: samples)
    plan = make_plan(loader={"workers": 1, "start_method": "spawn"})
    with pytest.raises(AutotrainError, match="cannot start by spawn") as caught:
        losses(plan, task, tmp_path)
    assert "top level" in caught.value.hint


def test_a_held_out_sample_is_never_trained_on():
    """And the task's costs are asked for by its own indices."""
    asked = []
    task = dataclasses.replace(noisy_task(20), length=lambda i: asked.append(i) or float(i))
    parts = data.split(task, make_plan())
    assert (parts.train_count, parts.valid_count) == (16, 4)
    assert sorted([*parts.train.indices, *parts.valid.indices]) == list(range(20))
    assert parts.lengths.tolist() == [float(i) for i in parts.train.indices]
    assert asked == parts.train.indices


def test_a_sample_is_a_function_of_seed_epoch_and_index(tmp_path):
    """Not of its neighbours in the batch, nor of who drew numbers before."""
    task = noisy_task(20)
    source = Source(data.split(task, make_plan()), task, 7, tmp_path)
    together = source.made(Request(1, [4, 5, 6]), [0, 0]).batch[0]
    alone = source.made(Request(1, [5]), [0, 0]).batch[0]
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(alone, source.made(Request(2, [5]), [0, 0]).batch[0])


class Following(torch.utils.data.Dataset):
    """Samples that say which epoch it is."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor([float(self.epoch), float(index)]), torch.tensor([0.0])


@pytest.mark.parametrize("held_out", [False, True])
def test_a_training_set_is_told_of_each_epoch_and_a_validation_set_never(tmp_path, held_out):
    valid = None if held_out else Following()
    task = Task.regression(model=lambda: torch.nn.Linear(2, 1), train=Following(), valid=valid)
    source = Source(data.split(task, make_plan()), task, 7, tmp_path)
    seen = [source.made(Request(epoch, [1, 2]), [0, 0]).batch[0] for epoch in (0, 3, 1)]
    assert [batch[:, 0].tolist() for batch in seen] == [[0, 0], [3, 3], [1, 1]]
    if not held_out:
        assert source.made(Request(None, [1]), [0, 0]).batch[0][0, 0] == 0


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("keep", [None, "ram", "device"])
def test_samples_that_follow_the_epochs_are_read_anew_in_each(tmp_path, workers, keep):
    """Kept ones would be those of the first epoch for ever."""
    seen = []

    def loss(model, batch):
        seen.append(int(batch[0][0, 0]) if model.training else 0)
        return Loss(total=model(batch[0]).square().sum(), weight=len(batch[0]))

    task = Task(
        model=lambda: torch.nn.Linear(2, 1), train=Following(), valid=Following(), loss=loss
    )
    plan = make_plan(loader={"workers": workers, "keep": keep}, train={"epochs": 3})
    (tmp_path / "task.py").touch()
    losses(plan, task, tmp_path / "run", tmp_path / "task.py")
    assert sorted({*seen}) == [0, 1, 2]
    assert seen.index(1) < seen.index(2)


def test_batches_of_any_shape_reach_the_loss(tmp_path):
    """Tuples of padded tensors here; the weight is a tensor."""
    assert all(loss > 0 for loss in losses(make_plan(), sequence_task(), tmp_path))


def test_each_length_is_read_once_however_often_a_run_heals(tmp_path):
    """Reading them may mean to open each file."""
    asked = []

    def length(index):
        asked.append(index)
        return float(index % 5 + 1)

    task = failing(regression(length=length), lambda call, *_: call in (3, 8, 20))
    seen = run(make_plan(train={"epochs": 3}), task, tmp_path)
    assert len(named(seen, "healed")) == 3
    assert sorted(asked) == [*range(64)]
