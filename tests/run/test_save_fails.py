"""A save that fails costs a warning, never the run."""

import errno
import os
import time
from dataclasses import replace

import pytest
import torch

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.keeper import Keeper, pointed
from autotrain.run.keeping.tensors import Flat
from autotrain.run.loop import train
from autotrain.run.state import Run

from .plans import make_plan
from .tasks import noisy_task

resource = pytest.importorskip("resource")


class LimitedFiles:
    """Within, no file grows beyond so many bytes: write fails with EFBIG, as a full disk would."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.count, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_training_goes_on_and_later_saves_succeed(tmp_path):
    """The newest good one is kept and named, no temporary file is left, room is stated."""
    going = train(make_plan(), noisy_task(), tmp_path, task_file=tmp_path)
    seen = []
    for event in going:
        seen.append(event)
        if event.name == "evaluated" and event.epoch == 2:
            with LimitedFiles(1000):
                seen.append(next(going))
            entries = sorted(e.name for e in checkpoint.checkpoints(tmp_path).iterdir())
            assert entries == ["best", "latest", "step-00000005"]
    warned = [event for event in seen if event.name == "warned"]
    assert len(warned) == 1
    assert os.strerror(errno.EFBIG) in warned[0].message
    assert "step-00000005 is kept" in warned[0].message
    assert "needed 1 MiB" in warned[0].message
    assert "free " in warned[0].message
    assert (seen[-1].reason, seen[-1].checkpoint[-13:]) == ("finished", "step-00000015")


@pytest.mark.parametrize("background", [False, True])
def test_a_best_one_that_is_not_on_disk_leaves_its_place_to_the_next(tmp_path, background):
    """Worse than it, but the best there is."""
    task, judged = noisy_task(), []

    def loss(model, batch):
        made = task.loss(model, batch)
        judged.append(not model.training)
        return made if model.training else replace(made, total=made.total * sum(judged))

    plan = make_plan(checkpoint={"every_epochs": 9, "background": background})
    going = train(plan, replace(task, loss=loss), tmp_path, task_file=tmp_path)
    seen, lost, limit = [], [], LimitedFiles(1000)
    for event in going:
        seen.append(event)
        if event.name == "evaluated" and event.epoch == 1:
            limit.__enter__()
        elif event.name == "warned" and "not saved" in event.message:
            lost.append(event.message)
            limit.__exit__()
        elif not lost:  # the next one is judged when the loss of this one is known
            time.sleep(0.05)
    assert "the best that is saved counts as best" in lost[0]
    assert pointed(tmp_path)["best"] == 10
    assert seen[-1].best_step == 10


def test_state_that_turns_into_what_no_checkpoint_holds_ends_no_run(tmp_path):
    """It is said at each save, and the last one has to come about."""
    steps = []

    class Odd(type(noisy_task().model())):
        def get_extra_state(self):
            return b"raw" if 3 < sum(steps) < 12 else None

        def set_extra_state(self, state):
            pass

    def loss(model, batch):
        steps.append(model.training)
        return task.loss(model, batch)

    task = noisy_task()
    plan = make_plan(batch={"accum_steps": 1, "micro_batch": 8})
    going = train(plan, replace(task, model=Odd, loss=loss), tmp_path, task_file=tmp_path)
    seen = list(going)
    told = [event.message for event in seen if event.name == "warned"]
    assert any("not saved: _extra_state: a bytes cannot be kept" in message for message in told)
    assert (seen[-1].reason, seen[-1].checkpoint[-13:]) == ("finished", "step-00000015")


def test_a_last_step_that_cannot_be_saved_is_an_error(tmp_path):
    """Finished is not said of work that is not on disk."""
    going = train(make_plan(train={"epochs": 1}), noisy_task(), tmp_path, task_file=tmp_path)
    seen = []
    for event in going:
        seen.append(event)
        if event.name == "evaluated":
            break
    with LimitedFiles(1000), pytest.raises(AutotrainError, match="could not be saved"):
        seen.extend(going)
    assert [event.name for event in seen[-4:]] == ["warned", "warned", "warned", "stopped"]
    assert seen[-1].reason == "error"


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_no_memory_for_the_copy_is_a_save_that_failed(tmp_path, monkeypatch, background, error):
    """Nothing is cut for it; it is tried again at the next step, then after 2, 4 and so on."""
    asked, snapshot = [], Run.snapshot

    def taken(run):
        asked.append(run.state.step)
        if len(asked) < 4:
            raise error
        return snapshot(run)

    monkeypatch.setattr(Run, "snapshot", taken)
    monkeypatch.setattr("autotrain.run.cadence.Cadence.saves", lambda self, step: step == 2)
    plan = make_plan(checkpoint={"background": background}, evaluate={"every_epochs": 9})
    seen = list(train(plan, noisy_task(), tmp_path, task_file=tmp_path))
    assert asked[:4] == [2, 3, 5, 9]
    told = [event for event in seen if event.name in ("warned", "healed", "saved")]
    assert [event.name for event in told[:4]] == ["warned"] * 3 + ["saved"]
    assert "no memory for a copy" in told[0].message
    assert not any(event.name == "healed" for event in seen)
    assert seen[-1].reason == "finished"


def test_no_memory_for_the_last_copy_is_an_error_and_no_want_of_a_smaller_batch(
    tmp_path, monkeypatch
):
    """It says so, and not that the step did not fit."""

    def taken(run):
        raise MemoryError

    monkeypatch.setattr(Run, "snapshot", taken)
    going, seen = train(make_plan(), noisy_task(), tmp_path, task_file=tmp_path), []
    with pytest.raises(AutotrainError, match="could not be saved: no memory for a copy"):
        seen.extend(going)
    assert seen[-1].reason == "error"
    assert not any(event.name == "healed" for event in seen)


@pytest.fixture
def three_megabytes(small_disk, tmp_path):
    """A file system of 3 MiB."""
    return small_disk(tmp_path, "3m")


@pytest.mark.root
def test_a_full_disk_keeps_the_newest_good_checkpoint(three_megabytes):
    """ENOSPC is foreseen with its figures; room made in mid-run is used."""
    keeper = Keeper(three_megabytes, keep=1)

    def snapshot(step, megabytes):
        rest = {"state": {}, "param_groups": []}
        tensors = {"w": torch.zeros(megabytes << 18)}
        return checkpoint.Snapshot(step, Flat(tensors, {}, {}), Flat({}, {}, rest), {})

    saved = [next(keeper.save("step", 1, step, lambda s=step: snapshot(s, 1))) for step in (1, 2)]
    assert [event.name for event in saved] == ["saved", "warned"]
    assert os.strerror(errno.ENOSPC) in saved[1].message
    assert "needed 2 MiB" in saved[1].message
    checkpoint.verify(checkpoint.folder(three_megabytes, pointed(three_megabytes)["latest"]))
    assert not list(checkpoint.checkpoints(three_megabytes).glob(".*"))


@pytest.mark.root
def test_a_disk_that_fills_during_the_write_leaves_nothing_half_made(three_megabytes):
    """Free space is only a promise; write says the truth."""
    rest = {"state": {}, "param_groups": []}
    tensors = {"w": torch.zeros(4 << 18)}
    whole = checkpoint.Snapshot(1, Flat(tensors, {}, {}), Flat({}, {}, rest), {})
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        checkpoint.save(three_megabytes, whole)
    assert list(checkpoint.checkpoints(three_megabytes).iterdir()) == []
