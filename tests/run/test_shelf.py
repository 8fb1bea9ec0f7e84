"""Samples kept where the model computes: the same batches, read once; else it is said why not."""

import dataclasses
import multiprocessing

import numpy
import pytest
import torch

from autotrain.run.loading.shelf import Shelf
from autotrain.run.loading.source import Made
from autotrain.run.loop import train
from autotrain.task import Task

from .faulty import digest, named
from .plans import make_plan
from .tasks import Noisy, NoisyNet
from .test_kept import Counted


def run(task, directory, keep="device", workers=0, **plan):
    directory.mkdir()
    (directory / "task.py").touch()
    plan = make_plan(loader={"keep": keep, "workers": workers}, **plan)
    return list(train(plan, task, directory, task_file=directory / "task.py"))


def figures(events):
    return [(e.step, e.loss) for e in events if e.name in ("step", "evaluated")]


def both(dataset, directory, **more):
    """Events with keeping, and what was read; figures and weights are those without."""
    task = Task.classification(model=NoisyNet, train=dataset, valid=Noisy(9), **more)
    without = run(task, directory / "without", None)
    dataset.read.clear()
    kept = run(task, directory / "with")
    assert figures(kept) == figures(without)
    assert digest(directory / "with") == digest(directory / "without")
    return kept, dataset.read


def test_each_sample_is_read_once_in_a_run(tmp_path):
    """But for those that prove that two readings agree; nothing is otherwise, to the bit."""
    seen, read = both(Counted(40), tmp_path)
    assert len(read) == 40 + 8
    assert set(read) == set(range(40))
    assert not [e for e in named(seen, "warned") if "training samples" in e.message]


class Worked(Counted):
    """Counts the readings of all processes."""

    def __init__(self, count):
        super().__init__(count)
        self.times = multiprocessing.Value("q", 0)

    def __getitem__(self, index):
        with self.times.get_lock():
            self.times.value += 1
        return super().__getitem__(index)


def test_workers_end_when_all_is_kept(tmp_path):
    """What they were asked for and have not brought is picked out of what they brought before."""
    train_set, valid = Worked(48), Worked(9)
    task = Task.classification(model=NoisyNet, train=train_set, valid=valid)
    without = run(task, tmp_path / "without", None, workers=2, train={"epochs": 6})
    for each in (train_set, valid):
        each.times.value = 0
    going = train(
        make_plan(loader={"keep": "device", "workers": 2}, train={"epochs": 6}), task,
        tmp_path / "with", task_file=tmp_path / "task.py",
    )  # fmt: skip
    seen, alive = [], []
    for event in going:
        seen.append(event)
        if event.name == "step":
            alive.append(len(multiprocessing.active_children()))
    assert alive[0] == 2
    assert alive[-1] == 0
    assert figures(seen) == figures(without)
    assert digest(tmp_path / "with") == digest(tmp_path / "without")
    # Read ahead by two workers, two micro-batches of four each, when the last one came.
    assert train_set.times.value <= 48 + 8 + 4 * 4
    assert valid.times.value == 9 + 8


def told(events):
    (said,) = [e.message for e in named(events, "warned") if "training samples" in e.message]
    return said.partition("kept on the device: ")[2]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("draw", [lambda: torch.randn(6), numpy.random.rand])
def test_samples_with_draws_are_read_each_time(tmp_path, draw, workers):
    """The augmentation of each epoch is its own, as without keeping."""
    task = Task.classification(model=NoisyNet, train=Counted(40, draw), valid=Noisy(9))
    without = run(task, tmp_path / "without", None)
    kept = run(task, tmp_path / "with", workers=workers)
    assert told(kept) == "reading them draws random numbers"
    assert figures(kept) == figures(without)


def test_samples_that_change_by_a_generator_of_their_own_are_read_each_time(tmp_path):
    """Two readings differ: nothing else could tell."""
    own = numpy.random.default_rng(5)
    task = Task.classification(
        model=NoisyNet, train=Counted(40, lambda: float(own.random())), valid=Noisy(9)
    )
    assert "two readings of sample" in told(run(task, tmp_path / "with"))
    assert len(task.train.read) >= 3 * 40


class Torn(Counted):
    """One sample cannot be read."""

    def __getitem__(self, index):
        if index == 17:
            raise ValueError("torn")
        return super().__getitem__(index)


def test_a_set_with_a_bad_sample_is_read_each_time(tmp_path):
    """As without keeping, it is put aside."""
    seen, _ = both(Torn(40), tmp_path)
    assert told(seen) == "not all of them can be read"


def test_a_collate_of_ones_own_is_asked_each_time(tmp_path):
    """What it makes of a sample may depend on the others."""

    def shifted(samples):
        x, y = torch.utils.data.default_collate(samples)
        return x - x.mean(0), y

    seen, read = both(Counted(40), tmp_path, collate=shifted)
    assert told(seen) == "the task has a collate of its own"
    assert len(read) == 3 * 40


@dataclasses.dataclass
class Batches:
    """A shelf of `count` samples, made from a dataset in one batch after another."""

    dataset: list
    room: float = 1e9

    def __post_init__(self):
        read = self.dataset.__getitem__
        self.shelf = Shelf(len(self.dataset), self.room, read, lambda batch: batch)

    def offer(self, *indices):
        samples = [self.dataset[i] for i in indices]
        batch = torch.utils.data.default_collate(samples)
        self.shelf.offer(indices, Made(batch, len(indices)), batch)
        return batch


def test_rows_are_what_collate_made_whatever_the_order():
    """Nested, of several types, and not before all that is asked for is there."""
    of = [{"x": torch.arange(3) + i, "y": (i, float(i)), "z": numpy.float32(i)} for i in range(6)]
    made = Batches(of)
    made.offer(0, 1, 2)
    assert made.shelf.rows([2, 3]) is None
    assert not made.shelf.whole
    made.offer(5, 4, 3)
    assert made.shelf.whole
    found = made.shelf.rows([4, 0, 5])
    wanted = torch.utils.data.default_collate([of[i] for i in (4, 0, 5)])
    assert [*found] == [*wanted]
    for one, other in ((found["x"], wanted["x"]), (found["z"], wanted["z"]),
                       *zip(found["y"], wanted["y"], strict=True)):  # fmt: skip
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_who_changes_a_batch_changes_nothing_that_is_kept():
    """Neither the one that was kept nor one that was picked out."""
    made = Batches([torch.full((2,), float(i)) for i in range(4)])
    made.offer(0, 1, 2, 3).zero_()
    made.shelf.rows([1]).zero_()
    assert made.shelf.rows([1]).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        ([("a", 1), ("b", 2), ("c", 3)], "they are not made of tensors and numbers alone"),
        ([torch.ones(2), torch.ones(2), torch.ones(3)], "they are not all of one size"),
        ([torch.ones(2), torch.ones(2), torch.ones(2).double()], "they are not all of one size"),
    ],
)
def test_what_is_no_row_of_a_column_is_not_kept(dataset, why):
    made = Batches(dataset)
    made.offer(0, 1)
    made.offer(2)
    assert made.shelf.why.startswith(why)
    assert made.shelf.rows([0]) is None


def test_a_missing_value_is_the_same_at_each_reading(tmp_path):
    """Tables have NaN where nobody knew; a batch holds what was read, to the bit."""
    rows = [torch.tensor([1.0, torch.nan, -0.0]), torch.tensor([torch.nan, 2.0, 3.0])]
    made = Batches(rows)
    made.offer(0, 1)
    assert not made.shelf.why
    assert torch.equal(
        made.shelf.rows([1, 0]).view(torch.int32), torch.stack(rows)[[1, 0]].view(torch.int32)
    )


def test_no_more_is_kept_than_there_is_room_for():
    """All of a set, or nothing: and it is said with both figures."""
    for room, fits in ((4 * 1000 * 8.0, True), (4 * 1000 * 8.0 - 1, False)):
        made = Batches([torch.ones(1000, dtype=torch.float64)] * 4, room)
        made.offer(0, 1)
        assert (not made.shelf.why) == fits
    assert made.shelf.why == "they take 31.2 KiB and 31.2 KiB are free for them"


@pytest.mark.gpu
def test_on_a_gpu_samples_stay_there(tmp_path):
    """After the first epoch nothing is read or copied; the batches are the same."""
    task, plan = None, {"device": {"kind": "cuda"}, "optimizer": {"implementation": "fused"}}
    found, devices = [], []

    def loss(model, batch):
        devices.append(batch[0].device.type)
        return task.loss(model, batch)

    for keep in (None, "device"):
        task = Task.classification(model=NoisyNet, train=Counted(40), valid=Noisy(9))
        spied = dataclasses.replace(task, loss=loss)
        found.append((figures(run(spied, tmp_path / f"{keep}", keep, **plan)), task.train.read))
    (without, _), (kept, read) = found
    assert set(devices) == {"cuda"}
    assert len(read) == 40 + 8
    assert [step for step, _ in kept] == [step for step, _ in without]
    for (_, one), (_, other) in zip(kept, without, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
