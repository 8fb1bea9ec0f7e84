"""Frozen parameters and groups of the optimizer in a run."""

import pytest
import torch
from safetensors.torch import load_file

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train

from .plans import make_plan
from .tasks import noisy_task


def run(plan, task, directory, **more):
    return list(train(plan, task, directory, task_file=directory / "task.py", **more))


def weights(directory, step):
    return load_file(checkpoint.folder(directory, step) / "model.safetensors")


def contents(directory):
    path, _ = checkpoint.newest_good(directory)
    return [(path / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def test_what_is_frozen_stays_and_so_do_its_statistics(tmp_path):
    """Across evaluations, after which the model goes back to training; the optimizer knows less."""
    plan = make_plan(train={"freeze": ["first.*", "norm.*"]}, checkpoint={"every_steps": 1})
    run(plan, noisy_task(), tmp_path)
    one, last = weights(tmp_path, 14), weights(tmp_path, 15)
    moved = {name for name in one if not torch.equal(one[name], last[name])}
    assert moved == {"last.weight", "last.bias"}
    assert torch.equal(last["norm.running_mean"], torch.zeros(16))
    states = load_file(checkpoint.folder(tmp_path, 15) / "optimizer.safetensors")
    assert {key.partition(".")[0] for key in states} == {"0", "1"}


GROUPED = {"decays": "matrices", "layer_decay": 0.5}


@pytest.mark.parametrize(
    "optimizer", [GROUPED, {**GROUPED, "name": "sgd", "momentum": 0.9}, {"layer_decay": 0.7}]
)
def test_groups_resume_to_the_bit(tmp_path, optimizer):
    plan = make_plan(optimizer=optimizer, train={"freeze": ["norm.bias"]})
    run(plan, noisy_task(), tmp_path / "whole")
    run(plan, noisy_task(), tmp_path / "cut", max_steps=7)
    run(plan, noisy_task(), tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_the_lowest_layer_takes_the_smallest_steps(tmp_path):
    """Sign-like steps of Adam: after one, each weight moved by about its own rate."""
    plan = make_plan(
        optimizer={"weight_decay": 0.0, "layer_decay": 0.5, "lr": 1e-3},
        schedule={"name": "constant", "warmup_steps": 0}, checkpoint={"every_steps": 1, "keep": 9},
    )  # fmt: skip
    run(plan, noisy_task(), tmp_path, max_steps=2)
    one, two = weights(tmp_path, 1), weights(tmp_path, 2)
    far = {name: (two[name] - one[name]).abs().max() for name in ("first.weight", "last.weight")}
    assert 0.4 < far["first.weight"] / far["last.weight"] < 0.6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": {"decays": "matrices"}}, r"optimizer\.decays = all became matrices"),
        ({"train": {"freeze": ["first.*"]}}, r"train\.freeze = \[\] became \['first\.\*'\]"),
    ],
)
def test_a_resume_with_other_groups_or_frozen_parts_is_refused_by_name(tmp_path, change, said):
    run(make_plan(), noisy_task(), tmp_path, max_steps=3)
    with pytest.raises(AutotrainError, match=said):
        run(make_plan(**change), noisy_task(), tmp_path, resume=True)


def test_a_pattern_that_matches_nothing_ends_the_run_before_it_begins(tmp_path):
    with pytest.raises(AutotrainError, match=r"train\.freeze: 'frist\.\*' .*'first\.\*'"):
        run(make_plan(train={"freeze": ["frist.*"]}), noisy_task(), tmp_path)
