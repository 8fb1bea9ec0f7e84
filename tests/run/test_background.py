"""Checkpoints that are written while training goes on: the same ones, and the same training."""

import errno
import hashlib
import json
import os
import threading
import time

import pytest
import torch

from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.keeper import Keeper, pointed
from autotrain.run.keeping.tensors import Flat
from autotrain.run.keeping.writer import Writer
from autotrain.run.loop import train

from .plans import make_plan
from .tasks import noisy_task

EVERY = {"every_steps": 2, "every_epochs": None, "keep": 99}


def contents(directory):
    """Of each checkpoint its tensors, as SHA-256, and its state but for what was timed."""
    found = {}
    for step in checkpoint.steps(directory):
        path = checkpoint.folder(directory, step)
        for file in path.glob("*.safetensors"):
            found[path.name, file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        state = json.loads((path / "state.json").read_text())
        del state["run"]["meter"], state["run"]["history"]  # times, and losses that others hold
        found[path.name, "state.json"] = state
    return found


def run(directory, *, background, **more):
    plan = make_plan(checkpoint={**EVERY, "background": background}, train={"ema_decay": 0.9})
    return train(plan, noisy_task(), directory, task_file=directory, **more)


@pytest.fixture
def slow(monkeypatch):
    """A disk on which a checkpoint takes a while; how many threads have written to it."""
    written, save = [], checkpoint.save

    def slowly(directory, snapshot):
        time.sleep(0.05)
        written.append(threading.current_thread())
        return save(directory, snapshot)

    monkeypatch.setattr(checkpoint, "save", slowly)
    return written


def test_each_checkpoint_is_of_its_own_step_though_training_went_on(tmp_path, slow):
    """File by file what a run that waits for each writes."""
    first = list(run(tmp_path / "waits", background=False))
    assert {thread.name for thread in slow} == {"MainThread"}
    slow.clear()
    seen = list(run(tmp_path / "goes on", background=True))
    assert "MainThread" not in {thread.name for thread in slow[:-2]}
    assert contents(tmp_path / "goes on") == contents(tmp_path / "waits")
    assert pointed(tmp_path / "goes on") == pointed(tmp_path / "waits")

    def saved(events):
        return [(event.step, event.label) for event in events if event.name == "saved"]

    assert saved(seen) == saved(first)
    assert seen[-1].name == "stopped"
    place = [event.name for event in seen].index("saved")
    assert seen[place - 1].step > seen[place].step


def test_only_the_copy_holds_training_up(tmp_path, slow):
    keeper = Keeper(tmp_path, keep=2, background=True)
    begun = time.perf_counter()
    assert list(keeper.begin("step", 1, 1, lambda: snapshot(1))) == []
    assert time.perf_counter() - begun < 0.04
    assert keeper.has(1)
    assert keeper.good == frozenset()
    assert list(keeper.news()) == []
    (event,) = keeper.settle()
    assert (event.step, event.name) == (1, "saved")
    assert event.held_seconds < 0.04 < event.seconds
    assert keeper.good == {1}
    assert list(keeper.settle()) == []


def snapshot(step, megabytes=0):
    rest = {"state": {}, "param_groups": []}
    tensors = {"w": torch.full((1 + (megabytes << 18),), float(step))}
    return checkpoint.Snapshot(step, Flat(tensors, {}, {}), Flat({}, {}, rest), {})


def test_the_next_save_waits_for_the_one_before(tmp_path, slow):
    """At most one copy lies in RAM; pointers go forward."""
    keeper = Keeper(tmp_path, keep=9, background=True)
    events = []
    for step in range(1, 5):
        events += keeper.begin("best" if step == 2 else "step", 1, step, lambda s=step: snapshot(s))
        assert sum(thread.name == "autotrain-checkpoint" for thread in threading.enumerate()) == 1
    events += keeper.settle()
    assert [event.step for event in events] == [1, 2, 3, 4]
    assert pointed(tmp_path) == {"latest": 4, "best": 2}


def test_a_run_that_is_left_leaves_whole_checkpoints_and_no_thread(tmp_path, slow):
    """Whoever leaves a run alone in its middle finds the directory free and nothing half made."""
    going = run(tmp_path, background=True)
    for event in going:
        if event.name == "step" and event.step >= 6:
            break
    going.close()
    assert not [t for t in threading.enumerate() if t.name == "autotrain-checkpoint"]
    assert not list(checkpoint.checkpoints(tmp_path).glob(".*"))
    for step in checkpoint.steps(tmp_path):
        checkpoint.verify(checkpoint.folder(tmp_path, step))
    seen = list(run(tmp_path, background=True, resume=True))
    assert seen[0].resumed_from == str(checkpoint.folder(tmp_path, 5))
    alone = tmp_path / "alone"
    list(run(alone, background=False))
    last = ("step-00000015", "model.safetensors")
    assert contents(tmp_path)[last] == contents(alone)[last]


def test_a_save_that_fails_is_told_and_tried_again(tmp_path, monkeypatch):
    """At the next step, then after 2, 4 and so on."""
    save, tried = checkpoint.save, []

    def fails(directory, taken):
        tried.append(taken.step)
        if len(tried) < 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return save(directory, taken)

    monkeypatch.setattr(checkpoint, "save", fails)
    plan = make_plan(checkpoint={**EVERY, "every_steps": 100},
                     evaluate={"every_epochs": 9}, train={"epochs": 4})  # fmt: skip
    monkeypatch.setattr("autotrain.run.cadence.Cadence.saves", lambda self, step: step in (2, 20))
    seen = list(train(plan, noisy_task(), tmp_path, task_file=tmp_path))
    assert tried[:4] == [2, 3, 5, 9]
    told = [event for event in seen if event.name in ("warned", "saved")]
    assert [event.name for event in told[:4]] == ["warned"] * 3 + ["saved"]
    assert os.strerror(errno.EIO) in told[0].message
    assert seen[-1].reason == "finished"


def test_a_disk_without_room_is_asked_and_not_written_to(tmp_path, monkeypatch):
    """One warning; the save is made as soon as there is room."""
    keeper = Keeper(tmp_path, keep=2, background=True)
    room = iter([0] * 5 + [1 << 40] * 9)
    monkeypatch.setattr(Keeper, "_room", lambda _: (next(room), ""))
    (event,) = keeper.save("step", 1, 10, lambda: snapshot(10, 1))
    assert os.strerror(errno.ENOSPC) in event.message
    due = [step for step in range(10, 100) if keeper.due(step)]
    assert due[0] == 25  # asked at 11, 13, 17: no room
    assert [event.name for event in keeper.save("step", 1, 25, lambda: snapshot(25))] == ["saved"]
    assert not any(keeper.due(step) for step in range(26, 200))


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_asked_for():
    """A bug is not lost, and the next job starts afresh."""
    writer = Writer()
    writer.begin(lambda: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        writer.take()
    writer.begin(lambda: 5)
    writer.wait()
    assert writer.done
    assert writer.take() == 5
    assert not writer.done
