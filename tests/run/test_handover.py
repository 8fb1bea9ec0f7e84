"""Weights that a run begins with: which are taken over, from which checkpoint, and when."""

import pytest
import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint, handover
from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.run.keeping.keeper import Keeper
from autotrain.run.keeping.tensors import Flat, flatten_model

from .faulty import named, regression, run, weights
from .test_back import nan_at, planned


def saved(directory, model, step=1, average=None):
    empty = Flat({}, {}, {})
    snapshot = Snapshot(step, flatten_model(model), empty, {}, average)
    return checkpoint.save(directory, snapshot)


class Net(nn.Module):
    def __init__(self, width, classes, tied=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, classes)
        self.scale = nn.Parameter(torch.ones(()))
        if tied:
            self.again = nn.Linear(4, width, bias=False)
            self.again.weight = self.encoder[0].weight


def test_what_has_the_name_and_the_shape_is_taken_over(tmp_path):
    old, new = Net(8, 3), Net(8, 2)
    old.encoder[1].running_mean.fill_(7.0)
    head = new.head.weight.clone()
    taken = handover.take_over(new, saved(tmp_path, old))
    assert torch.equal(new.encoder[0].weight, old.encoder[0].weight)
    assert new.encoder[1].running_mean.eq(7.0).all()
    assert torch.equal(new.head.weight, head)
    assert taken.told == (
        "scale: 1 tensor taken over; encoder.*: 7 taken over; head.*: 2 new, of another shape"
    )


def test_tied_weights_are_taken_over_under_both_names(tmp_path):
    old, new = Net(8, 2, tied=True), Net(8, 2, tied=True)
    told = handover.take_over(new, saved(tmp_path, old)).told
    assert "again.*: 1 taken over" in told
    assert new.again.weight is new.encoder[0].weight
    assert torch.equal(new.again.weight, old.again.weight)


def test_averaged_weights_are_the_ones_that_are_taken_over(tmp_path):
    old, new = Net(8, 2), Net(8, 2)
    flat = flatten_model(old)
    average = Flat({n: torch.full_like(t, 5) for n, t in flat.tensors.items()}, {}, {})
    handover.take_over(new, saved(tmp_path, old, average=average))
    assert new.encoder[0].weight.eq(5).all()


def test_a_checkpoint_of_which_nothing_fits_is_refused(tmp_path):
    path = saved(tmp_path, nn.Linear(2, 2))
    with pytest.raises(AutotrainError, match=r"nothing of it fits the model: .*weight: 1 left beh"):
        handover.take_over(Net(8, 2), path)


def test_a_torn_checkpoint_is_not_taken_over(tmp_path):
    path = saved(tmp_path, Net(8, 2))
    (path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(AutotrainError, match="the manifest says"):
        handover.take_over(Net(8, 2), path)


def test_the_best_checkpoint_is_named_by_its_pointer_and_is_the_latest_where_there_is_none(
    tmp_path,
):
    saved(tmp_path, Net(8, 2), step=3)
    latest = saved(tmp_path, Net(8, 2), step=5)
    assert handover.source(tmp_path, "best") == latest
    Keeper(tmp_path, 3).point("best", 3)
    assert handover.source(tmp_path, "best") == checkpoint.folder(tmp_path, 3)
    assert handover.source(tmp_path, "latest") == latest
    (latest / "state.json").write_bytes(b"x")
    assert handover.source(tmp_path, "latest") == checkpoint.folder(tmp_path, 3)
    (checkpoint.folder(tmp_path, 3) / "state.json").write_bytes(b"x")
    for which in ("best", "latest"):
        with pytest.raises(AutotrainError):
            handover.source(tmp_path, which)


def test_the_digest_is_of_the_weights_alone(tmp_path):
    model = Net(8, 2)
    first, again = saved(tmp_path / "a", model), saved(tmp_path / "b", model, step=9)
    assert handover.weights_digest(first) == handover.weights_digest(again) != ""
    assert handover.weights_digest(saved(tmp_path / "c", Net(8, 2))) != handover.weights_digest(
        first
    )
    assert handover.weights_digest(tmp_path) == ""


def test_a_run_that_goes_on_takes_nothing_over(tmp_path):
    path = saved(tmp_path / "before", Net(8, 2))
    own = tmp_path / "own"
    assert handover.begin(Net(8, 2), own, None, resume=False) is None
    assert handover.begin(Net(8, 2), own, path, resume=False) is not None
    assert handover.begin(Net(8, 2), own, path, resume=True) is not None  # nothing to go on from
    saved(own, Net(8, 2))
    assert handover.begin(Net(8, 2), own, path, resume=True) is None


def test_a_run_that_goes_back_to_its_beginning_has_the_weights_taken_over(tmp_path):
    before = run(planned(run={"seed": 7}), regression(), tmp_path / "before", max_steps=8)
    path = checkpoint.folder(tmp_path / "before", 8)
    assert before[-1].step == 8
    plan = planned(run={"log_every_steps": 2}, checkpoint={"every_epochs": 9, "keep": 9},
                   evaluate={"every_epochs": 9})  # fmt: skip
    task = nan_at(plan, regression(), tmp_path / "look", range(5, 11))
    seen = run(plan, task, tmp_path / "run", weights=path, max_steps=10)
    assert seen[0].weights_from == str(path)
    assert seen[0].weights_taken == "0.*: 2 tensors taken over; 2.*: 2 taken over"
    assert any("back to the weights of the beginning" in e.cure for e in named(seen, "healed"))
    found, taken = weights(tmp_path / "run", 10), weights(tmp_path / "before", 8)
    assert all(torch.equal(taken[key], found[key]) for key in taken)
