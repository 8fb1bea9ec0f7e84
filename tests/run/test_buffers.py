"""A model's buffers around a step: what a step that does not count leaves of them."""

import math

import pytest
import torch
from torch import nn

from autotrain.run.buffers import Buffers
from autotrain.task import Loss, Task

from .faulty import failing, named, on_a_device, run, spoilt, weights
from .plans import make_plan


class Odd(nn.Module):
    """Whatever its forward pass does to its buffers."""

    def __init__(self, **buffers):
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)


def put_back(way, buffers):
    if way == "host":
        buffers.restore()
    else:
        buffers.settle(torch.tensor([1.0]))


@pytest.mark.parametrize("way", ["host", "device"])
def test_what_a_step_did_to_a_buffer_is_undone_whichever_tensor_it_is_now(way):
    """Changed in place, or another tensor in its place; the same memory step after step."""
    model = Odd(still=torch.ones(3), moves=torch.zeros(2, dtype=torch.long), anew=torch.zeros(2))
    buffers = Buffers(model)
    for step in range(3):
        before = {name: value.clone() for name, value in model.named_buffers()}
        buffers.keep()
        model.moves += 5
        model.anew = torch.full((2,), math.nan)
        put_back(way, buffers)
        assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
        buffers.keep()
        model.moves += 1
        model.anew = torch.full((2,), float(step))
        buffers.settle(torch.tensor([0.0]))
        assert int(model.moves[0]) == step + 1
        assert float(model.anew[0]) == step


@pytest.mark.parametrize("way", ["host", "device"])
def test_a_cache_that_grew_came_or_went_stays_and_all_else_is_put_back(way):
    """The model made it, and knows of it in other ways too."""
    model = Odd(grows=torch.zeros(2), goes=torch.zeros(2), dropped=torch.zeros(2), comes=None)
    model.register_buffer("counts", torch.zeros(()))
    buffers = Buffers(model)
    for length in (3, 4):
        buffers.keep()
        model.counts += 1
        model.grows = torch.arange(float(length))
        model.goes = None
        if length == 3:
            del model.dropped
            model.comes = torch.ones(1)
        put_back(way, buffers)
        assert len(model.grows) == length
        assert model.goes is None
        assert model.comes is not None
        assert float(model.counts) == 0


class Cached(nn.Module):
    """A table of positions, made anew for a longer sequence; `limit` says how long it is."""

    def __init__(self):
        super().__init__()
        self.inner, self.limit = nn.Linear(3, 3), 4
        self.register_buffer("table", torch.zeros(4, 3), persistent=False)

    def forward(self, x):
        if x.shape[1] > self.limit:
            self.limit = x.shape[1]
            table = torch.linspace(0, 1, self.limit)[:, None].repeat(1, 3)
            self.register_buffer("table", table, persistent=False)
        return self.inner(x + self.table[: x.shape[1]])


class Gone(nn.Module):
    """Its only buffer is None from the first forward pass on."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.register_buffer("state", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.state = None
        return self.inner(x)


class Sequences(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(2 + index % 9, 3, generator=generator), index


def pad(samples):
    rows, numbers = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), None, torch.tensor(numbers)


def loss(model, batch):
    return Loss(total=(model(batch[0]) - batch[0]).square().sum(), weight=batch[0].numel())


@pytest.mark.parametrize("model", [Cached, Gone])
@pytest.mark.parametrize("way", ["host", "device"])
def test_models_whose_buffers_grow_or_go_are_trained_and_healed(tmp_path, monkeypatch, model, way):
    """Without a fault, with memory that runs out in the longest micro-batch, and with NaN."""
    if way == "device":
        on_a_device(monkeypatch)
    plan = make_plan(optimizer={"implementation": "fused"}, train={"epochs": 2})
    task = Task(model=model, train=Sequences(), valid=Sequences(), collate=pad, loss=loss)
    longest = []

    def first_long(call, model, batch):
        longest.extend([call] * (batch[0].shape[1] == 10))
        return longest[:1] == [call]

    faulty = {
        "none": task,
        "memory": failing(task, first_long),
        "nan": spoilt(task, lambda samples: math.nan if 8 in samples else 1.0),
    }
    for name, each in faulty.items():
        seen = run(plan, each, tmp_path / name)
        assert seen[-1].reason == "finished"
        assert bool(named(seen, "healed")) == (name != "none")
        assert all(bool(t.isfinite().all()) for t in weights(tmp_path / name).values())
