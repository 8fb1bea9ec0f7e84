"""Averaged weights in a run: tried, kept, gone back with, and no hindrance to a resume."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train
from autotrain.run.signals import Stop
from autotrain.task import Loss

from .plans import make_plan
from .tasks import NoisyNet, noisy_task

AVERAGED = {"epochs": 3, "ema_decay": 0.9}
FILES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors")


def run(plan, task, directory, **more):
    return list(train(plan, task, directory, task_file=directory / "task.py", **more))


def newest(directory):
    return checkpoint.newest_good(directory)[0]


def contents(directory):
    return {name: (newest(directory) / name).read_bytes() for name in FILES}


def spied(task, seen, at=None, error=None):
    """The task; `seen` gets the first weight at each call of the loss, and whether in training."""

    def loss(model, batch):
        seen.append((model.training, model.first.weight.detach().clone()))
        if error is not None and len(seen) == at:
            raise error
        return task.loss(model, batch)

    return dataclasses.replace(task, loss=loss)


def test_a_run_learns_as_without_an_average_and_is_tried_with_it(tmp_path):
    """The figures are those of the averaged weights, the weights those of the run without."""
    plain, seen = [], []
    without = run(make_plan(), spied(noisy_task(), plain), tmp_path / "without")
    averaged = run(make_plan(train=AVERAGED), spied(noisy_task(), seen), tmp_path / "with")
    assert len(plain) == len(seen)
    for (training, one), (_, other) in zip(plain, seen, strict=True):
        assert torch.equal(one, other) is training
    found = [
        [event.loss for event in events if event.name == "evaluated"]
        for events in (without, averaged)
    ]
    assert len(found[0]) == 3
    assert all(a != b for a, b in zip(*found, strict=True))
    files = [(newest(tmp_path / d) / "model.safetensors").read_bytes() for d in ("without", "with")]
    assert files[0] == files[1]


def test_the_averaged_model_of_a_checkpoint_loads_as_it_is_and_gives_the_figure(tmp_path):
    """`ema.safetensors` is a whole model, with the counter of BatchNorm as it is in the other."""
    events = run(make_plan(train=AVERAGED), noisy_task(), tmp_path)
    own = load_file(newest(tmp_path) / "model.safetensors")
    averaged = load_file(newest(tmp_path) / "ema.safetensors")
    model = NoisyNet()
    model.load_state_dict(averaged)
    differ = {name for name in own if not torch.equal(own[name], averaged[name])}
    assert differ == {*own} - {"norm.num_batches_tracked"}
    task = noisy_task()
    model.eval()
    fixed = [(torch.ones(4, 6), torch.zeros(4, dtype=torch.long))]
    with torch.no_grad():
        assert torch.isfinite(task.loss(model, fixed[0]).total)
    saved = next(event for event in reversed(events) if event.name == "saved")
    assert saved.bytes == sum(entry.stat().st_size for entry in newest(tmp_path).iterdir())


def test_a_run_with_an_average_resumes_to_the_bit(tmp_path):
    """Stopped in mid-window, in an evaluation, and at a step that nothing else is due at."""
    plan = make_plan(train=AVERAGED, evaluate={"every_epochs": 1, "every_steps": 4})
    run(plan, noisy_task(), tmp_path / "whole")
    stop = Stop()

    def loss(model, batch, made=noisy_task()):  # noqa: B008
        calls.append(model.training)
        if len(calls) in (9, 14, 25):
            stop.reason = "interrupted"
        return made.loss(model, batch)

    calls, resume = [], False
    for _ in range(4):
        stop.reason = None
        task = dataclasses.replace(noisy_task(), loss=loss)
        events = run(plan, task, tmp_path / "cut", resume=resume, stop=stop)
        resume = True
        if events[-1].reason == "finished":
            break
    assert events[-1].reason == "finished"
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_after_an_evaluation_that_fails_the_run_saves_its_own_weights(tmp_path):
    """The emergency checkpoint is that of a run that stopped there; nothing has changed places."""
    seen = []
    # The first evaluation comes after 5 steps of 2 micro-batches, the last of 1.
    failing = spied(noisy_task(), seen, at=10, error=ValueError("no"))
    with pytest.raises(AutotrainError):
        run(make_plan(train=AVERAGED), failing, tmp_path / "failed")
    assert seen[-1][0] is False
    run(make_plan(train=AVERAGED), noisy_task(), tmp_path / "stopped", max_steps=5)
    assert newest(tmp_path / "failed").name == newest(tmp_path / "stopped").name
    assert contents(tmp_path / "failed") == contents(tmp_path / "stopped")


def nan_at(task, calls, where):
    """The task, whose loss is NaN at these training micro-batches."""

    def loss(model, batch):
        found = task.loss(model, batch)
        calls.append(model.training)
        if model.training and calls.count(True) in where:
            return Loss(total=found.total * torch.nan, weight=found.weight)
        return found

    return dataclasses.replace(task, loss=loss)


def test_steps_that_are_not_committed_leave_the_average_alone(tmp_path):
    """One NaN: the checkpoint after that step equals the one before it, but for the position."""
    task = nan_at(noisy_task(), [], {3})
    plan = make_plan(train=AVERAGED, checkpoint={"every_steps": 1, "keep": 9})
    run(plan, task, tmp_path, max_steps=2)
    one, two = (load_file(checkpoint.folder(tmp_path, n) / "ema.safetensors") for n in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_going_back_to_a_checkpoint_brings_its_average_back(tmp_path):
    """NaN that does not end: what was learned, averages too, is as it was in the checkpoint."""
    task = nan_at(noisy_task(), [], {15, 17, 18})
    plan = make_plan(train=AVERAGED)
    events = run(plan, task, tmp_path, max_steps=10)
    healed = next(event for event in events if event.name == "healed" and "back to" in event.cure)
    assert "back to what was learned by step 5" in healed.cure
    then, now = (load_file(checkpoint.folder(tmp_path, n) / "ema.safetensors") for n in (5, 10))
    assert all(torch.equal(then[name], now[name]) for name in then)


def test_going_back_to_the_beginning_begins_the_average_anew(tmp_path):
    """Seven steps, then NaN up to the first checkpoint: all is as the seed made it."""
    task, rarely = nan_at(noisy_task(), [], {15, 17, 18}), {"every_epochs": 3}
    plan = make_plan(train=AVERAGED, evaluate=rarely, checkpoint=rarely)
    events = run(plan, task, tmp_path, max_steps=10)
    assert any("of the beginning" in e.cure for e in events if e.name == "healed")
    own, averaged = (load_file(newest(tmp_path) / f"{n}.safetensors") for n in ("model", "ema"))
    assert all(torch.equal(own[name], averaged[name]) for name in own)


@pytest.mark.parametrize("decays", [(None, 0.9), (0.9, None)])
def test_an_average_is_not_begun_or_dropped_on_the_way(tmp_path, decays):
    first, then = (make_plan(train={"ema_decay": decay}) for decay in decays)
    run(first, noisy_task(), tmp_path, max_steps=3)
    with pytest.raises(AutotrainError, match=r"train\.ema_decay = (on|off) became (on|off)"):
        run(then, noisy_task(), tmp_path, resume=True)


def test_another_decay_is_taken_up_by_a_resume(tmp_path):
    run(make_plan(train=AVERAGED), noisy_task(), tmp_path, max_steps=3)
    plan = make_plan(train={**AVERAGED, "ema_decay": 0.99})
    assert run(plan, noisy_task(), tmp_path, resume=True)[-1].reason == "finished"


def test_a_torn_average_makes_a_checkpoint_torn(tmp_path):
    run(make_plan(train=AVERAGED), noisy_task(), tmp_path, max_steps=5)
    (newest(tmp_path) / "ema.safetensors").write_bytes(b"torn")
    assert newest(tmp_path) is None
