"""A model on a device in a process that takes steps when it is asked, whatever becomes of it."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from autotrain.probe.child import Request
from autotrain.probe.turns import Turn, Turns
from autotrain.schema import Variant
from tests.run.plans import make_plan

TASK = """
import torch
from torch import nn

from autotrain import Task


class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        print("reading", index)
        return torch.randn(4), index % 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        if len(x) == 3:
            raise ValueError("three is too many")
        if len(x) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x)


def task(data):
    return Task.classification(model=Net, train=Points(), valid=Points())
"""
PLAIN = Variant("fp32", "contiguous", 1)


def turn(size, steps=2, **more):
    return Turn(variant=PLAIN, micro_batch=size, parts=1, steps=steps, **more)


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    file = tmp_path_factory.mktemp("turns") / "task.py"
    file.write_text(TASK)
    made = Turns(Request(plan=make_plan(), task_file=str(file), data=None), wait_seconds=120,
                 most_bytes=None)  # fmt: skip
    yield made
    made.end()


def test_it_takes_the_steps_that_are_asked_for_one_request_after_another(turns):
    assert turns.begun.outcome == "ok", turns.begun
    for steps in (1, 3):
        took = turns.take(turn(4, steps, first=True), seconds=60)
        assert took.outcome == "ok", took
        assert len(took.steps) == steps
        assert all(part > 0 for step in took.steps for part in step)
        assert took.peak_bytes > 50 << 20


def test_what_fails_at_one_size_leaves_the_others(turns):
    took = turns.take(turn(3), seconds=60)
    assert (took.outcome, turns.over) == ("failed", False)
    assert "three is too many" in took.message
    took = turns.take(turn(5), seconds=60)
    assert (took.outcome, turns.over) == ("out_of_memory", False)
    assert turns.take(turn(4), seconds=60).outcome == "ok"


def test_another_way_is_taken_in_the_same_process(turns):
    other = Turn(variant=Variant("bf16", "contiguous", 1), micro_batch=4, parts=2, steps=1)
    assert turns.take(other, seconds=60).outcome == "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_process_that_is_killed_or_too_slow_says_so_and_is_gone(turns):
    """Last in this file: nothing is left of the process."""
    pid = turns._dialogue.pid
    os.kill(pid, signal.SIGSTOP)
    took = turns.take(turn(4), seconds=0.2)
    assert (took.outcome, turns.over) == ("timed_out", True)
    os.kill(pid, signal.SIGKILL)
    took = turns.take(turn(4), seconds=60)
    assert took.outcome == "out_of_memory"
    assert "the system killed it" in took.message
    turns.end()
    assert not psutil.pid_exists(pid)


def test_a_task_that_cannot_begin_says_why(tmp_path):
    (tmp_path / "task.py").write_text(TASK.replace("nn.Linear(4, 2)", "1 / 0"))
    request = Request(plan=make_plan(), task_file=str(tmp_path / "task.py"), data=None)
    turns = Turns(request, wait_seconds=120, most_bytes=None)
    assert turns.over
    assert turns.begun.outcome == "failed"
    assert "building the model" in turns.begun.message
    turns.end()


def test_one_that_holds_too_much_is_ended(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    request = Request(plan=make_plan(), task_file=str(Path(tmp_path / "task.py")), data=None)
    turns = Turns(request, wait_seconds=120, most_bytes=20 << 20)
    assert turns.begun.outcome == "out_of_memory"
    assert "and 20 MiB were free" in turns.begun.message
    turns.end()
