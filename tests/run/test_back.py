"""Back to a checkpoint within a run, and the same way again after a kill."""

import dataclasses
import math
import shutil

import pytest
import torch
from torch import nn

from autotrain.foreign.weights import Foreign
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import folder
from autotrain.run.loop import train
from autotrain.run.state import NotFiniteError

from .faulty import digest, failing, named, regression, run, snapshot, until_error, weights
from .plans import make_plan

# 8 steps an epoch, of 8 samples.
BATCH = {"micro_batch": 4, "accum_steps": 2, "global_batch": 8}


def planned(**changes):
    same = {"batch": BATCH, "checkpoint": {"keep": 99}, "train": {"epochs": 5}}
    return make_plan(**(same | changes))


def broken(task, when):
    """The task; `when(step, model)` says which steps (counted as windows read) become NaN.

    A window is known by its samples, so that a resume knows it too.
    """
    order = {}

    def loss(model, batch):
        made = task.loss(model, batch)
        if model.training and when(order, model, batch[2].tolist()):
            made = dataclasses.replace(made, total=made.total * math.nan)
        return made

    return dataclasses.replace(task, loss=loss)


def windows(plan, task, directory):
    """The samples of each step, in order."""
    read = []

    def loss(model, batch):
        if model.training:
            read.append(batch[2].tolist())
        return task.loss(model, batch)

    run(plan, dataclasses.replace(task, loss=loss), directory)
    return [{*one, *two} for one, two in zip(read[::2], read[1::2], strict=True)]


def nan_at(plan, task, directory, steps):
    """The task, NaN at those steps of that plan."""
    order = windows(plan, task, directory)
    bad = [order[step - 1] for step in steps]
    return broken(task, lambda _, model, samples: any({*samples} <= each for each in bad))


def test_nan_that_goes_on_leads_back_to_before_it_began(tmp_path):
    """What was learned is that of the checkpoint; the place and the samples go on."""
    every = {"every_epochs": None, "every_steps": 5, "keep": 99}
    plan = planned(run={"log_every_steps": 4}, checkpoint=every)
    task = nan_at(plan, regression(), tmp_path / "look", range(22, 31))
    seen = run(plan, task, tmp_path / "run")
    told = [e.cure for e in named(seen, "healed")]
    assert "back to what was learned by step 20, and on behind step 30: 1 of 3" in told[-1]
    assert all("not committed" in cure for cure in told[:-1])
    assert seen[-1].reason == "finished"
    assert [e.step for e in named(seen, "step")] == [*range(4, 41, 4)]
    before, after = weights(tmp_path / "run", 20), weights(tmp_path / "run", 30)
    assert all(torch.equal(before[key], after[key]) for key in before)
    state = snapshot(tmp_path / "run").state
    assert (state["rollbacks"], state["went_back_at"], state["went_back_to"]) == (1, 30, 20)


def test_nan_for_ever_ends_the_run_with_the_samples_named(tmp_path):
    """After three returns; the checkpoint it leaves is good."""
    plan = planned(run={"log_every_steps": 4}, train={"epochs": 7})
    order = windows(plan, regression(), tmp_path / "look")
    task = nan_at(plan, regression(), tmp_path / "look2", range(18, 57))
    seen, error = until_error(plan, task, tmp_path / "run", NotFiniteError)
    assert seen[-1].reason == "not_finite"
    assert seen[-1].step == 50
    assert "the loss became nan at steps 41 to 50 (samples " in error.message
    samples = error.message.partition("(samples ")[2].partition(", ...")[0].split(", ")
    assert {*map(int, samples)} == order[40]
    assert len([e for e in named(seen, "healed") if "back to" in e.cure]) == 3
    path, torn = checkpoint.newest_good(tmp_path / "run")
    assert not torn
    assert str(path) == seen[-1].checkpoint
    assert all(bool(t.isfinite().all()) for t in checkpoint.load(path).model.tensors.values())


def test_how_often_a_run_logs_decides_nothing(tmp_path):
    """Twelve steps in a row that are NaN cost one return; what is usual is learned alike."""
    task, found = None, []
    for every in (1, 3, 10, 99):
        plan = planned(run={"log_every_steps": every}, heal={"spike_score": 10.0})
        task = task or nan_at(plan, regression(), tmp_path / "look", range(19, 31))
        seen = run(plan, task, tmp_path / f"{every}")
        (back,) = [e.cure for e in named(seen, "healed") if "back to" in e.cure]
        assert "by step 16, and on behind step 30: 1 of 3" in back
        told = "".join(e.fault for e in named(seen, "healed") if "not committed" in e.cure)
        assert " 19 " in told
        assert " 30 " in told
        found.append(
            (digest(tmp_path / f"{every}"), snapshot(tmp_path / f"{every}").state["guard"])
        )
    assert all(each == found[0] for each in found)


def test_none_may_be_allowed(tmp_path):
    """heal.rollbacks = 0: the first time is the last."""
    plan = planned(run={"log_every_steps": 4}, heal={"rollbacks": 0})
    task = nan_at(plan, regression(), tmp_path / "look", range(18, 41))
    seen, _ = until_error(plan, task, tmp_path / "run", NotFiniteError)
    assert seen[-1].step == 20


def test_without_a_checkpoint_it_is_the_weights_of_the_beginning(tmp_path):
    """And an optimizer that has seen nothing."""
    plan = planned(run={"log_every_steps": 2}, checkpoint={"every_epochs": 9, "keep": 9},
                   evaluate={"every_epochs": 9})  # fmt: skip
    start = []
    task = nan_at(plan, regression(), tmp_path / "look", range(5, 11))

    def loss(model, batch):
        if not start:
            start.append({k: v.clone() for k, v in model.state_dict().items()})
        return task.loss(model, batch)

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path / "run", max_steps=10)
    assert any("back to the weights of the beginning" in e.cure for e in named(seen, "healed"))
    found = snapshot(tmp_path / "run", 10)
    assert all(torch.equal(start[0][key], value) for key, value in found.model.tensors.items())
    assert not found.optimizer.tensors


@pytest.mark.parametrize("again", [False, True], ids=["at once", "after a resume"])
def test_weights_that_were_given_are_not_replaced_by_drawn_ones(tmp_path, again):
    """They are not there any more: the oldest checkpoint serves."""
    plan = planned(run={"log_every_steps": 2}, checkpoint={"every_steps": 3, "keep": 1},
                   evaluate={"every_epochs": 9})  # fmt: skip
    given = Foreign(tmp_path / "given.pt", "0" * 64, regression().model().state_dict())
    task = nan_at(plan, regression(), tmp_path / "look", range(5, 11))
    first = run(plan, task, tmp_path / "run", weights=given, max_steps=6) if again else []
    shutil.rmtree(checkpoint.folder(tmp_path / "run", 0), ignore_errors=True)
    more = {"resume": True} if again else {"weights": given}
    seen = first + run(plan, task, tmp_path / "run", max_steps=12, **more)
    cures = [e.cure for e in named(seen, "healed")]
    assert not any("beginning" in cure for cure in cures)
    assert any(", the oldest checkpoint" in cure for cure in cures), cures


def spoil(directory, step):
    path = folder(directory, step) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    """The one before it serves; it is told."""
    plan = planned(run={"log_every_steps": 4})
    task = nan_at(plan, regression(), tmp_path / "look", range(20, 31))
    seen = []
    for event in train(plan, task, tmp_path / "run", task_file=tmp_path):
        seen.append(event)
        if event.name == "saved" and event.step == 16:
            spoil(tmp_path / "run", 16)
    assert any("torn" in event.message for event in named(seen, "warned"))
    assert any("learned by step 8," in event.cure for event in named(seen, "healed"))
    assert seen[-1].reason == "finished"


def test_the_second_return_goes_further_back_if_the_first_did_not_help(tmp_path):
    """Once a checkpoint has been made on the way since, that is the one again."""
    plan = planned(evaluate={"every_epochs": 9}, train={"epochs": 7})
    bad = [*range(17, 31), *range(38, 41)]
    seen = run(plan, nan_at(plan, regression(), tmp_path / "look", bad), tmp_path / "run")
    said = [e.cure.partition(",")[0] for e in named(seen, "healed") if "back to" in e.cure]
    # The one of step 24 is of what was taken back from 16: no progress.
    assert said == [f"back to what was learned by step {step}" for step in (16, 8, 32)]


def test_a_validation_loss_that_was_finite_once_and_is_no_more_leads_back(tmp_path):
    """The model is at fault: BatchNorm's statistics are, say. Training itself saw nothing."""

    def net():
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1))

    task, seen_steps = regression(net), []

    def loss(model, batch):
        made = task.loss(model, batch)
        if model.training:
            seen_steps.append(1)
            if len(seen_steps) == 2 * 18:  # buffers only: no step is bad
                model[1].running_mean = torch.full((16,), math.nan)
        return made

    plan = planned(train={"epochs": 8})
    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path)
    (told,) = named(seen, "healed")
    assert "the validation loss is nan after step 40" in told.fault
    assert "learned by step 16" in told.cure
    assert all(math.isfinite(e.loss) for e in named(seen, "evaluated") if e.step > 40)


def test_a_validation_loss_that_never_was_finite_is_only_told(tmp_path):
    """One bad validation sample is no reason to give up what is learned."""
    task = regression()

    def loss(model, batch):
        made = task.loss(model, batch)
        return made if model.training else dataclasses.replace(made, total=made.total * math.nan)

    seen = run(planned(train={"epochs": 8}), dataclasses.replace(task, loss=loss), tmp_path)
    assert len([e for e in named(seen, "warned") if "validation loss" in e.message]) == 8
    assert not named(seen, "healed")
    assert seen[-1].reason == "finished"


@pytest.mark.parametrize("log_every", [1, 7])
@pytest.mark.parametrize("stops_at", [21, 24, 26, 29, 33])
def test_after_a_kill_it_goes_the_same_way_to_the_bit(tmp_path, stops_at, log_every):
    """Before, between and after two returns, with a spike left out besides."""
    plan = planned(
        run={"log_every_steps": log_every}, heal={"spike_score": 10.0},
        checkpoint={"every_epochs": None, "every_steps": 6, "keep": 99},
    )  # fmt: skip
    task = nan_at(plan, regression(), tmp_path / "look", [10, *range(18, 26), *range(27, 33), 36])
    whole = run(plan, task, tmp_path / "whole")
    assert sum("back to" in event.cure for event in named(whole, "healed")) >= 2
    going = train(plan, task, tmp_path / "killed", task_file=tmp_path)
    for event in going:
        if event.step >= stops_at:
            break
    going.close()  # nothing is written on the way out
    run(plan, task, tmp_path / "killed", resume=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")
    one, other = snapshot(tmp_path / "whole").state, snapshot(tmp_path / "killed").state
    for key in ("rollbacks", "went_back_at", "went_back_to", "guard", "best_step", "samples"):
        assert one[key] == other[key]


@pytest.mark.parametrize("after", ["healed", "saved", "step"])
def test_after_memory_ran_out_a_resume_goes_the_same_way_to_the_bit(tmp_path, after):
    """A checkpoint is made where the cut changed; the plan says how it goes on from there."""
    from autotrain.amending import amended
    from autotrain.schema import Amendment

    def net():
        return nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))

    fails = lambda call, *_: call == 22  # noqa: E731
    plan = planned(run={"log_every_steps": 1})
    run(plan, failing(regression(net), fails), tmp_path / "whole")
    healed, seen = plan, []
    going = train(plan, failing(regression(net), fails), tmp_path / "killed", task_file=tmp_path)
    for event in going:
        seen.append(event.name)
        if event.name == "healed":  # as the command keeps the plan
            made = [
                Amendment(step=event.step, key=key, before=a, after=b, why=event.fault)
                for key, (a, b) in event.amends.items()
            ]
            healed = amended(plan, made)
        if "healed" in seen and event.name == after:
            break
    going.close()
    run(healed, regression(net), tmp_path / "killed", resume=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")
