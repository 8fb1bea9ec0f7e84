"""Several processes train as one does: the same gradients, figures, decisions and endings.

Each test forks its processes, which meet over gloo: about a second each.
"""

import dataclasses
import math
import os
import signal
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autotrain.events import Evaluated, Healed, Step, Stopped
from autotrain.run.keeping import checkpoint
from autotrain.run.loading.order import Order, cut, dealt
from autotrain.run.loop import train
from autotrain.run.processes import board
from autotrain.run.processes.joining import share_of
from autotrain.run.signals import Stop
from autotrain.task import Loss, Task
from tests.run.faulty import regression
from tests.run.plans import make_plan
from tests.run.tasks import next_frame, noisy_task, sequence_task
from tests.run.worlds import in_world

FIVE = {"micro_batch": 3, "accum_steps": 3, "global_batch": 9}


def carried_out(ranks, plan, make, directory, **more):
    """Every event of a run, and last what it raised."""
    events = []
    try:
        with Stop().catch() as stop:
            for event in train(
                plan, make(), Path(directory), task_file=Path(__file__), stop=stop, ranks=ranks,
                **more,
            ):  # fmt: skip
                events.append(event)
    except Exception as error:
        events.append(error)
    return events


def weights(directory):
    path, torn = checkpoint.newest_good(Path(directory))
    assert not torn
    return checkpoint.load(path).model.tensors


def furthest(one, other):
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def insist_on_figures(alone, first, others):
    """Rank 0 told what one process alone tells, and the others' losses are its own."""
    for kind, names in ((Step, ("loss", "grad_norm", "weight", "parts", "samples", "lr")),
                        (Evaluated, ("loss", "metrics", "best"))):  # fmt: skip
        assert len(of(kind, first)) == len(of(kind, alone)) > 1
        for one, other in zip(of(kind, alone), of(kind, first), strict=True):
            for name in names:
                assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-12), name
    for events in others:
        assert [e.loss for e in of(Step, events)] == [e.loss for e in of(Step, first)]


# --- the same mathematics -----------------------------------------------------------------------


@pytest.fixture(params=["together", "apart"])
def apart(request):
    """Whether each rank is on its own machine: then DDP adds up, else shared memory."""
    return request.param == "apart"


@pytest.mark.parametrize(
    ("world", "batch"),
    [
        (2, {}),  # windows of two micro-batches, one each
        (2, {"micro_batch": 1, "accum_steps": 8}),
        (3, FIVE),  # one each; 40 samples leave a window of 4: none for the third
        (3, {"micro_batch": 1, "accum_steps": 2, "global_batch": 2}),  # fewer samples than ranks
    ],
)
def test_weights_and_figures_are_those_of_one_process(tmp_path, world, batch, apart):
    plan = make_plan(batch=batch, train={"epochs": 2})
    alone = carried_out(None, plan, sequence_task, tmp_path / "one")
    many = tmp_path / "many"
    first, *others = in_world(world, _added, plan, sequence_task, many, apart=apart)
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-12
    insist_on_figures(alone, first, others)


def _added(ranks, plan, make, directory):
    from autotrain.run.processes import ddp, parallel

    made, ready = [], parallel._ready
    parallel._ready = lambda run, ranks: made.append(ready(run, ranks)) or made[-1]
    events = carried_out(ranks, plan, make, directory)
    kind = board.Board if ranks.local_world == ranks.world else ddp.Adding
    assert {type(adding) for adding in made} == {kind}
    return events


class Wide(nn.Module):
    """Dropout, a part that only some batches use, and one that none does."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 2)
        self.sometimes, self.never = nn.Linear(16, 16), nn.Linear(4, 4)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        if len(x) < 4:
            hidden = hidden + self.sometimes(hidden)
        return self.last(self.drop(hidden))


def wide_task():
    return dataclasses.replace(noisy_task(), model=Wide)


def test_dropout_and_parameters_that_are_not_always_used(tmp_path, apart):
    """36 samples in windows of 7: micro-batches of 4 and of 3, and of 1 at an epoch's end.

    SGD: where a gradient is 0 but for rounding, Adam makes steps of it.
    """
    batch = {"micro_batch": 4, "accum_steps": 2, "global_batch": 7}
    plan = make_plan(
        batch=batch, optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.1, "momentum": 0.9}
    )
    carried_out(None, plan, wide_task, tmp_path / "one")
    in_world(2, carried_out, plan, wide_task, tmp_path / "many", apart=apart)
    one, many = weights(tmp_path / "one"), weights(tmp_path / "many")
    assert furthest(one, many) < 1e-6
    # Weight decay would have moved it, had it ever had a gradient of 0 in place of none.
    assert torch.equal(one["never.weight"], many["never.weight"])


@pytest.mark.parametrize(("kind", "index"), [("cuda", 2), ("rocm", 2), ("cpu", 1)])
def test_each_process_has_a_gpu_of_its_own(kind, index):
    """Whoever made it; those on a CPU share its cores."""
    plan = make_plan(device={"kind": kind, "index": 1, "threads": 4})
    second = SimpleNamespace(world=2, local_world=2, local_rank=1)
    mine = share_of(plan, second).device
    assert (mine.index, mine.threads) == (index, 2)


def test_micro_batches_are_dealt_evenly():
    assert dealt(8, 32, 2) == 8  # 4 micro-batches: two each
    assert dealt(32, 32, 2) == 16  # one was planned: each takes half
    assert dealt(8, 24, 2) == 6  # three were planned: four smaller ones
    assert dealt(1, 1, 4) == 1
    assert dealt(2, 2, 2, no_single=True) == 2  # BatchNorm: one takes all
    for count in (5, 32, 33):
        for world in (2, 3, 7):
            sizes = cut(count, dealt(4, count, world))
            assert sum(sizes) == count
            assert max(sizes) <= 4
            assert -(-len(sizes) // world) == -(-count // (4 * world))


def test_the_order_of_the_data_knows_no_world():
    for world in (2, 3):
        one, many = Order(20, 6, 3, 7), Order(20, 6, dealt(3, 6, world), 7)
        for step in range(8):
            assert [*chain(*one.window(step))] == [*chain(*many.window(step))]


class Book(nn.Module):
    """A codebook that moves in each forward pass of training, and is part of it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3).double()
        self.register_buffer("book", torch.zeros(3, dtype=torch.float64))

    def forward(self, frames):
        if self.training:
            self.book += 0.1 * frames.detach().mean(dim=(0, 1))
        return self.net(frames + self.book)


def test_buffers_are_those_of_rank_0(tmp_path):
    plan = make_plan(train={"epochs": 1})
    first, second = in_world(2, _book, plan, tmp_path)
    assert len(first) == len(second) == 5  # a micro-batch of each step
    assert first == second
    assert first[-1] != first[0]


def _book(ranks, plan, directory):
    seen = []

    def loss(model, batch):
        if model.training:
            seen.append(model.book.tolist())
        return next_frame(model, batch)

    carried_out(
        ranks, plan, lambda: dataclasses.replace(sequence_task(), model=Book, loss=loss), directory
    )
    return seen


def test_a_window_of_no_weight_is_passed_over_and_the_next_is_as_ever(tmp_path):
    """NaN in one process is NaN in all; what the next one is divided by knows nothing of it."""

    def make():
        task, calls = sequence_task(), []

        def loss(model, batch):
            made = task.loss(model, batch)
            calls.append(model.training)
            spoils = os.environ.get("RANK") == "1" and calls.count(True) == 2
            return dataclasses.replace(made, weight=math.nan if spoils else made.weight)

        return dataclasses.replace(task, loss=loss)

    found = in_world(2, carried_out, make_plan(train={"epochs": 1}), make, tmp_path)
    assert [events[-1].reason for events in found] == ["finished", "finished"]
    (told,) = of(Healed, found[0])
    assert "became nan at step 2 " in told.fault
    assert all(math.isfinite(event.loss) for event in of(Step, found[0]))


class Table(nn.Module):
    """A table of positions that a checkpoint would keep, in each process as long as it needs."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3).double()
        self.register_buffer("table", torch.zeros(1, 3, dtype=torch.float64))

    def forward(self, frames):
        length = frames.shape[1] + 9 * int(os.environ["RANK"] == "0")
        if length > len(self.table):
            self.table = torch.linspace(0, 1, length, dtype=torch.float64)[:, None].repeat(1, 3)
        return self.net(frames + self.table[: frames.shape[1]])


def test_a_buffer_that_grows_is_a_cache_of_each(tmp_path):
    """Nobody is sent another's: not before a step, not before an evaluation."""

    def make():
        return dataclasses.replace(sequence_task(), model=Table, loss=next_frame)

    found = in_world(2, carried_out, make_plan(train={"epochs": 1}), make, tmp_path)
    assert [events[-1].reason for events in found] == ["finished", "finished"]


# --- one goes wrong -----------------------------------------------------------------------------


class Broken(torch.autograd.Function):
    """Memory that runs out in a backward pass."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise torch.OutOfMemoryError("none left")


def failing(what, call):
    """A task whose `call`-th loss in rank 1 goes wrong, once."""

    def make():
        calls = [0]

        def loss(model, batch):
            made = next_frame(model, batch)
            if not model.training or os.environ.get("RANK") != "1":
                return made
            calls[0] += 1
            return what(made) if calls[0] == call else made

        return dataclasses.replace(sequence_task(), loss=loss)

    return make


def out_of_memory(made):
    raise torch.OutOfMemoryError("none left")


def in_backward(made):
    return dataclasses.replace(made, total=Broken.apply(made.total))


def not_a_number(made):
    return dataclasses.replace(made, total=made.total * float("nan"))


def a_bug(made):
    raise ValueError("an odd sample")


def asks_to_stop(made):
    os.kill(os.getpid(), signal.SIGTERM)
    return made


@pytest.mark.parametrize("what", [out_of_memory, in_backward])
def test_memory_that_ran_out_in_one_cuts_all_finer(tmp_path, what, apart):
    plan = make_plan(train={"epochs": 2})
    carried_out(None, plan, sequence_task, tmp_path / "one")
    found = in_world(2, carried_out, plan, failing(what, 4), tmp_path / "many", apart=apart)
    for events in found:
        (healed,) = of(Healed, events)
        assert healed.amends["batch.micro_batch"] == [4, 2]
        assert events[-1].reason == "finished"
    assert "process 1" in of(Healed, found[0])[0].fault
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-12


class Deep(nn.Module):
    """Three buckets of gradients; `fails` at a place in one backward pass, if told to."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6 if n == 0 else 500, 500) for n in range(3))
        self.last = nn.Linear(500, 2)
        self.fails = None

    def forward(self, x):
        x = x.requires_grad_()
        for place, layer in enumerate((*self.layers, self.last)):
            if self.fails == place and self.training and torch.is_grad_enabled():
                x, self.fails = Broken.apply(x), None
            x = torch.tanh(layer(x))
        return x


def deep_task(place, call):
    """In rank 1's `call`-th forward pass in training, the backward pass will fail."""

    def make():
        calls, whole = [0], Task.classification(model=Deep, train=noisy_task().train, valid=None)

        def loss(model, batch):
            calls[0] += model.training
            if calls[0] == call and os.environ.get("RANK") == "1":
                model.fails = place
            return whole.loss(model, batch)

        return dataclasses.replace(whole, loss=loss)

    return make


@pytest.mark.parametrize("place", [0, 2, 3])
def test_memory_that_runs_out_while_gradients_are_added_up_is_mended(tmp_path, place, apart):
    """Behind the last bucket, between two, before the first; late, when all had gone well."""
    plan = make_plan(
        batch={"micro_batch": 4, "accum_steps": 2, "global_batch": 8},
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}, train={"epochs": 5},
        evaluate={"every_epochs": 5}, data={"valid_share": 0.1},
    )  # fmt: skip
    carried_out(None, plan, deep_task(place, 0), tmp_path / "one")
    found = in_world(2, carried_out, plan, deep_task(place, 23), tmp_path / "many", apart=apart)
    for events in found:
        (healed,) = of(Healed, events)
        assert healed.step > 20
        assert healed.amends["batch.micro_batch"] == [4, 2]
        assert events[-1].reason == "finished"
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-6


def test_nan_in_one_is_a_step_that_none_commits(tmp_path):
    plan = make_plan(train={"epochs": 2})
    found = in_world(2, carried_out, plan, failing(not_a_number, 2), tmp_path)
    for events in found:
        (healed,) = of(Healed, events)
        assert "at step 2 " in healed.fault
        assert events[-1].reason == "finished"


def test_a_bug_in_one_ends_all_with_its_cause(tmp_path):
    first, second = in_world(2, carried_out, make_plan(), failing(a_bug, 4), tmp_path)
    assert first[-1].message.startswith("process 1: step 4: ValueError: an odd sample")
    assert second[-1].message.startswith("step 4: ValueError: an odd sample")
    assert first[-2].reason == "error"
    assert checkpoint.steps(tmp_path) == [3]  # the last whole step


def test_a_wish_of_one_stops_all_and_any_number_goes_on(tmp_path):
    plan = make_plan(train={"epochs": 2})
    carried_out(None, plan, sequence_task, tmp_path / "one")
    found = in_world(2, carried_out, plan, failing(asks_to_stop, 4), tmp_path / "many")
    # What all have done of a step counts.
    assert [(e[-1].reason, e[-1].step) for e in found] == [("terminated", 4)] * 2
    third = in_world(3, carried_out, plan, sequence_task, tmp_path / "many", resume=True)
    assert of(Stopped, third[0])[0].reason == "finished"
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-12


def test_a_resume_of_as_many_goes_the_same_way_to_the_bit(tmp_path):
    plan = make_plan(train={"epochs": 2})
    in_world(2, carried_out, plan, sequence_task, tmp_path / "whole")
    in_world(2, carried_out, plan, sequence_task, tmp_path / "parts", max_steps=4)
    in_world(2, carried_out, plan, sequence_task, tmp_path / "parts", resume=True)
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "parts")) == 0


def test_only_rank_0_writes(tmp_path):
    plan = make_plan(train={"epochs": 1})
    (tmp_path / "1").mkdir()
    found = in_world(2, _each_in_its_own_place, plan, tmp_path)
    assert [events[-1].reason for events in found] == ["finished"] * 2
    assert checkpoint.steps(tmp_path / "0") == [5]
    assert not [*(tmp_path / "1").iterdir()]


def _each_in_its_own_place(ranks, plan, directory):
    return carried_out(ranks, plan, sequence_task, directory / str(ranks.rank))


def contrast(model, batch):
    x, _ = batch
    return Loss(total=model(x).square().sum(), weight=len(x), mixes=True)


@pytest.mark.parametrize(
    ("world", "micro", "failing", "cuts"),
    [
        (2, 16, (3,), [("8 became 4", 4)]),
        (2, 16, (3, 4), [("8 became 4", 4), ("4 became 2", 2)]),
        (3, 12, (3,), [("4 became 2", 3)]),
        (3, 4, (3,), [("4 became 2", 2)]),
    ],
)
def test_more_processes_than_planned_cut_what_they_take(tmp_path, world, micro, failing, cuts):
    """A finer plan alone might leave each as much as before."""

    def make():
        task, calls = regression(count=48), []

        def loss(model, batch):
            calls.append(model.training)
            if calls.count(True) in failing and model.training and os.environ["RANK"] == "1":
                raise torch.OutOfMemoryError("none")
            return task.loss(model, batch)

        return dataclasses.replace(task, loss=loss)

    accum = 12 // micro or 1
    batch = {"micro_batch": micro, "accum_steps": accum, "global_batch": micro * accum}
    plan = make_plan(batch=batch, train={"epochs": 2})
    found = in_world(world, carried_out, plan, make, tmp_path)
    assert found[0][-1].reason == "finished"
    told = of(Healed, found[0])
    assert [(e.cure.partition(";")[0], e.amends["batch.micro_batch"][1]) for e in told] == [
        (f"micro-batches of {said}", after) for said, after in cuts
    ]


def test_an_evaluation_that_does_not_fit_is_cut_where_steps_are_of_single_samples(tmp_path):
    """A step is dealt out; a validation set is read as planned."""

    def make():
        task = regression(count=16)

        def loss(model, batch):
            if not model.training and len(batch[0]) > 1:
                raise torch.OutOfMemoryError("none")
            return task.loss(model, batch)

        return dataclasses.replace(task, loss=loss)

    batch = {"micro_batch": 2, "accum_steps": 1, "global_batch": 2}
    found = in_world(2, carried_out, make_plan(batch=batch, train={"epochs": 1}), make, tmp_path)
    assert found[0][-1].reason == "finished"
    (told,) = of(Healed, found[0])
    assert "micro-batches of 2 became 1" in told.cure


def test_a_loss_that_mixes_is_not_cut(tmp_path):
    def make():
        return Task(
            model=lambda: nn.Linear(6, 2), train=noisy_task().train, valid=None, loss=contrast
        )

    plan = make_plan(batch={"micro_batch": 8, "accum_steps": 1})
    found = in_world(2, carried_out, plan, make, tmp_path)
    assert "2 processes would cut the plan's micro-batches of 8 to 4" in found[0][-1].message


# --- in shared memory ---------------------------------------------------------------------------


def convolutional():
    """Weights in channels_last, whose gradients are to lie as they do."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 2))
    return net.to(memory_format=torch.channels_last)


def test_gradients_lie_as_their_parameters_do(tmp_path):
    x = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(x, (x.sum((1, 2, 3)) > 0).long())

    def make():
        return Task.classification(model=convolutional, train=data, valid=data)

    optimizer = {"implementation": "fused", "lr": 1e-3}
    plan = make_plan(optimizer=optimizer, model={"memory_format": "channels_last"})
    carried_out(None, plan, make, tmp_path / "one")
    in_world(2, carried_out, plan, make, tmp_path / "many")
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-5


def test_nothing_is_left_in_shared_memory_and_without_room_ddp_does_it(tmp_path):
    left = {*board.PLACE.glob("autotrain-*")}
    plan = make_plan(train={"epochs": 1})
    carried_out(None, plan, sequence_task, tmp_path / "one")
    in_world(2, carried_out, plan, sequence_task, tmp_path / "many")
    assert {*board.PLACE.glob("autotrain-*")} <= left
    assert set(in_world(2, _without_room, plan, tmp_path / "full")) == {"Adding"}
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "full")) < 1e-12


def _without_room(ranks, plan, directory):
    from autotrain.run.processes import parallel

    board.SHARE, kinds, ready = 0.0, set(), parallel._ready

    def noted(run, ranks):
        kinds.add(type(made := ready(run, ranks)).__name__)
        return made

    parallel._ready = noted
    carried_out(ranks, plan, sequence_task, directory)
    (kind,) = kinds
    return kind
