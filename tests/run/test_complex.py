"""Weights of complex numbers: trained, saved and resumed as others are."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from autotrain.probe.trace.sizes import sizes
from autotrain.run.keeping.copies import all_finite
from autotrain.task import Task

from .faulty import furthest, named, run, weights
from .plans import make_plan


class Waves(nn.Module):
    """A linear map of a signal's spectrum."""

    def __init__(self):
        super().__init__()
        self.spectrum = nn.Parameter(torch.randn(5, dtype=torch.cfloat))
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        return self.out(torch.fft.irfft(torch.fft.rfft(x.float()) * self.spectrum, n=8))


def waves():
    x = torch.randn(80, 8, generator=torch.Generator().manual_seed(3))
    rows = torch.utils.data.TensorDataset(x, x.cumsum(1)[:, -1:])
    return Task.regression(
        model=Waves, train=torch.utils.data.Subset(rows, range(64)),
        valid=torch.utils.data.Subset(rows, range(64, 80)),
    )  # fmt: skip


def planned(name, **more):
    chosen = {"name": name, "lr": 0.01, "weight_decay": 0.0, "implementation": "for-loop"}
    return make_plan(optimizer=chosen, checkpoint={"keep": 99}, **more)


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "adagrad"])
def test_they_learn_and_a_resumed_run_ends_to_the_bit_as_one_without_a_stop(tmp_path, name):
    plan = planned(name, train={"epochs": 3, "ema_decay": 0.9})
    whole = run(plan, waves(), tmp_path / "whole")
    losses = [event.loss for event in named(whole, "step")]
    assert losses[-1] < losses[0]
    run(plan, waves(), tmp_path / "cut", max_steps=5)
    run(plan, waves(), tmp_path / "cut", resume=True)
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "cut")) == 0


@pytest.mark.parametrize("clip", [0.5, None])
def test_a_gradient_that_is_not_finite_is_not_committed(tmp_path, clip):
    task, calls = waves(), []

    def loss(model, batch):
        calls.append(model.training)
        spoils = model.training and calls.count(True) == 7
        factor = complex(0, math.nan) if spoils else 1
        hook = model.spectrum.register_hook(lambda gradient: gradient * factor)
        made = task.loss(model, batch)
        if not spoils:
            hook.remove()
        return made

    plan = planned("sgd", heal={"spike_score": 10.0})
    clipped = plan.optimizer.model_copy(update={"clip_norm": clip})
    plan = plan.model_copy(update={"optimizer": clipped})
    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path)
    assert named(seen, "healed")
    assert all_finite(weights(tmp_path).values())


@pytest.mark.parametrize("part", [complex(0, math.nan), complex(math.inf, 0)])
def test_a_weight_of_which_one_part_is_not_finite_is_found(part):
    assert not all_finite([torch.tensor([1 + 1j, part])])
    assert all_finite([torch.tensor([1 + 1j])])


def test_a_profile_tells_of_them():
    assert sizes(Waves())["complex"]
    assert not sizes(nn.Linear(2, 2))["complex"]
