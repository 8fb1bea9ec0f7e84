"""What two snapshots of one step have in common."""

import copy
import dataclasses

import pytest
import torch

from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.likeness import compared
from autotrain.run.loop import train

from .plans import make_plan
from .tasks import noisy_task


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A snapshot of a real run."""
    folder = tmp_path_factory.mktemp("run")
    plan = make_plan(train={"ema_decay": 0.9})
    list(train(plan, noisy_task(), folder, task_file=folder, max_steps=7))
    return checkpoint.load(checkpoint.folder(folder, 7))


def apart(one, other):
    return {part.name: part for part in compared(one, other) if not part.same}


def test_times_and_what_else_runs_here_do_not_count(taken):
    other = copy.deepcopy(taken)
    other.state["meter"]["seconds"] += 1
    history = other.state["history"]
    history.update(others=0.5, celsius=60.0, peak_bytes=1, told=["starved"], rates=[1.0])
    assert not apart(taken, other)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda s: s.state.update(step=6), "place in the data"),
        (lambda s: s.state["history"]["losses"].append(1.0), "figures under way"),
        (lambda s: s.state.update(bad_evaluations=9), "early stopping"),
        (lambda s: s.state["schedule"].update(cuts=3), "learning rate"),
        (lambda s: next(iter(s.optimizer.tensors.values())).add_(1), "optimizer"),
        (lambda s: s.average.tensors.popitem(), "averaged weights"),
    ],
)
def test_each_part_is_told_by_itself(taken, change, name):
    other = copy.deepcopy(taken)
    change(other)
    assert set(apart(taken, other)) == {name}


def test_a_bit_is_enough_and_the_distance_is_told(taken):
    other = copy.deepcopy(taken)
    name, weight = next((n, t) for n, t in other.model.tensors.items() if t.is_floating_point())
    largest = float(weight.abs().max())
    weight.view(-1)[0] += 1e-3 * largest
    part = apart(taken, other)["weights"]
    assert part.distance == pytest.approx(1e-3, rel=0.01)
    assert name in part.said
    nan = copy.deepcopy(taken)
    nan.model.tensors[name].view(-1)[0] = torch.nan
    assert "weights" in apart(taken, nan)
    assert not apart(nan, copy.deepcopy(nan))
    shorter = dataclasses.replace(other, model=dataclasses.replace(other.model, rest={"odd": 1}))
    assert apart(taken, shorter)["weights"].said == "not the same tensors"
