"""`autotrain plan --find-lr --measure-noise`: real steps in a child, and what follows."""

import csv
import json

import pytest

from autotrain.commands import measuring
from autotrain.probe import child
from autotrain.probe.child import Silence

from .house import PLAN, TASK, tree

QUICK = ("--set", "device.threads=1", "--set", "train.epochs=2")


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A folder with a task file; `task(source)` changes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))

    def write(source=TASK):
        (tmp_path / "task.py").write_text(source)
        return tmp_path

    write()
    return write


def test_both_are_measured_for_real_and_the_plan_says_how(task, at):
    said = at(*PLAN, *QUICK, "--find-lr", "--measure-noise", "--json")
    assert said.code == 0
    plan, folder = json.loads(said.out), task()
    told = [x for x in said.err.splitlines() if "task got" not in x]
    assert told[0].startswith("measuring gradient noise: 64 steps of 8 x 8 samples, about ")
    assert told[2].startswith("finding the learning rate: up to 3 sweeps of up to 85 steps of 8 ")
    assert "suggest optimizer.lr" in told[3]
    assert told[4] == "curve: plan.lr.png, plan.lr.csv"
    rate = plan["because"]["optimizer"]["lr"]
    assert (rate["kind"], rate["value"]) == ("measured", plan["optimizer"]["lr"])
    assert "in 3 sweeps at 8 samples a step the loss falls up to a rate of " in rate["formula"]
    batch = plan["because"]["batch"]["global_batch"]
    assert "noise scale" in batch["formula"]
    assert (folder / "plan.lr.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "plan.lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["rate", "learned", "loss_1", "before_1"]
    assert 20 < len(rows) <= 85
    shown = at("explain", "plan.toml", "optimizer.lr")
    assert "measured" in shown.out
    assert "not used    without the range test says " in shown.out


@pytest.mark.slow
def test_the_users_own_rate_stays_and_the_curve_is_drawn(task, at):
    output = ("-o", "mine.toml")
    said = at(*PLAN, *QUICK, *output, "--find-lr", "--set", "optimizer.lr=0.5", "--json")
    plan = json.loads(said.out)
    assert plan["optimizer"]["lr"] == 0.5
    assert plan["because"]["optimizer"]["lr"]["kind"] == "user"
    assert "; you set 0.5" in said.err
    assert {"mine.toml", "mine.lr.png", "mine.lr.csv"} <= set(tree(task()))


@pytest.mark.parametrize("flag", ["--find-lr", "--measure-noise"])
def test_on_another_machine_nothing_can_be_measured(task, at, flag):
    said = at(*PLAN, flag, "--machine", "rtx-3050-laptop-4gb")
    assert (said.code, said.out) == (1, "")
    assert f"{flag}: real steps for " in said.error
    assert "cannot be taken on another machine" in said.error
    assert not (task() / "plan.toml").exists()


MIXES = (
    TASK.replace("from autotrain import Task", "from autotrain import Loss, Task").replace(
        "return Task.classification(", "return Task(loss=mixed,"
    )
    + """

def mixed(model, batch):
    return Loss(total=model(batch[0]).square().sum(), weight=1, mixes=True)
"""
)


def test_a_loss_that_ties_samples_together_has_no_noise_scale(task, at):
    task(MIXES)
    said = at(*PLAN, *QUICK, "--measure-noise")
    assert said.code == 1
    assert "mixes=True" in said.error
    assert "task.py" in said.error
    assert not (task() / "plan.toml").exists()


def test_code_that_fails_in_a_step_is_named_with_its_line(task, at):
    late = TASK.replace(
        "        return self.x[index], self.y[index]",
        "        if torch.utils.data.SEEN > 60:\n            raise KeyError('gone')\n"
        "        torch.utils.data.SEEN += 1\n        return self.x[index], self.y[index]",
    ).replace(
        "from torch import nn",
        "from torch import nn\nimport torch.utils.data\ntorch.utils.data.SEEN = 0",
    )
    task(late)
    said = at(*PLAN, *QUICK, "--find-lr")
    assert said.code == 1
    assert said.error.startswith("error: in the range test: ")
    assert "task.py:" in said.error
    assert "KeyError: 'gone'" in said.error


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        ("out_of_memory", 4, "memory ran out at micro_batch 8: killed"),
        ("timed_out", 1, "in the range test: killed"),
        ("failed", 1, "in the range test: killed"),
    ],
)
def test_a_child_that_does_not_answer_ends_the_plan(task, at, monkeypatch, outcome, code, says):
    silent = Silence(outcome=outcome, message="killed", peak=1)
    monkeypatch.setattr(child, "ask", lambda *a, **b: silent)
    said = at(*PLAN, *QUICK, "--find-lr")
    assert said.code == code
    assert says in said.error
    assert "leave --find-lr out" in said.err


@pytest.mark.slow
def test_no_suggestion_leaves_the_rule_and_says_so(task, at):
    task(
        TASK.replace(
            "return self.x[index], self.y[index]", "return self.x[index] * 0, torch.randint(2, ())"
        )
    )
    said = at(*PLAN, *QUICK, "--find-lr", "--json")
    plan = json.loads(said.out)
    assert "no suggestion from 3 sweeps" in said.err
    assert "; optimizer.lr stays 0.001" in said.err
    assert "a range test gave no suggestion" in plan["because"]["optimizer"]["lr"]["formula"]
    assert plan["because"]["optimizer"]["lr"]["kind"] == "rule"
    assert (task() / "plan.lr.png").exists()


def test_without_a_flag_nothing_is_measured(task, at, monkeypatch):
    def never(*a, **b):
        raise AssertionError("a child was started")

    monkeypatch.setattr(child, "ask", never)
    assert at(*PLAN, *QUICK).code == 0
    assert not any(measuring.NOTHING)
