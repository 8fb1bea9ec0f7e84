"""A teacher's weights: found by any of their names, checked by name and shape, never unpickled."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autotrain import Task
from autotrain.blocks.teacher import load_teacher, weights_file
from autotrain.errors import AutotrainError

from .loops import events_of


def net(width=8):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def task():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(24, 3, generator=draw)
    data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    return Task.classification(model=net, train=data, valid=data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    events_of(task(), folder)
    return folder


@pytest.mark.parametrize("name", ["", "checkpoints", "checkpoints/best", "checkpoints/latest"])
def test_a_run_and_its_pointers_lead_to_a_checkpoint(run, name):
    pointer = "latest" if name.endswith("latest") else "best"
    step = (run / "checkpoints" / pointer).read_text().strip()
    found = weights_file(run / name)
    assert found == run / "checkpoints" / step / "model.safetensors"
    teacher, digest = load_teacher(net, run / name)
    assert len(digest) == 64
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    for place in (found, found.parent):
        again, same = load_teacher(net, place)
        assert same == digest
        for key, value in again.state_dict().items():
            assert torch.equal(value, teacher.state_dict()[key])


def test_averaged_weights_come_first(run, tmp_path):
    """They are what was evaluated, and what made the best the best."""
    weights = net().state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, tmp_path / "ema.safetensors")
    teacher, _ = load_teacher(net, tmp_path)
    assert torch.equal(teacher.state_dict()["0.bias"], weights["0.bias"] + 1)


def refused(place, make=net):
    with pytest.raises(AutotrainError) as caught:
        load_teacher(make, place)
    return caught.value


def test_names_and_shapes_that_do_not_match_are_named(run):
    said = refused(run, lambda: net(9)).message
    assert "0.bias is [8], not [9]" in said
    assert "0.weight is [8, 3], not [9, 3]" in said
    assert "and 2 more" in said
    said = refused(run, lambda: nn.Sequential(nn.Linear(3, 8))).message
    assert "1.bias is unknown to it" in said
    said = refused(run, lambda: nn.Sequential(*net(), nn.Linear(2, 2))).message
    assert "3.bias is missing; 3.weight is missing" in said


def test_a_place_without_a_checkpoint_is_named(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    save_file(net().state_dict(), tmp_path / "elsewhere" / "model.safetensors")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best").write_text("../elsewhere")
    assert "names no checkpoint beside it" in refused(tmp_path / "run" / "best").message
    assert str(tmp_path / "none") in refused(tmp_path / "none").message
    assert str(tmp_path) in refused(tmp_path / "elsewhere" / "..").message
    for text in ("step-00000009", "../elsewhere", "/", "", "\xff"):
        (tmp_path / "best").write_text(text)
        assert refused(tmp_path / "best").message.endswith("names no checkpoint beside it")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_a_pickle_is_refused_unopened(tmp_path):
    for name in ("teacher.safetensors", "teacher.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    assert "its header claims" in refused(tmp_path / "teacher.safetensors").message
    assert "no weights can be read" in refused(tmp_path / "teacher.pt").message


def test_a_torn_checkpoint_is_refused(run, tmp_path):
    weights = {name: value + 1 for name, value in net().state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    manifest = {"files": {"model.safetensors": {"sha256": "0" * 64}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "torn" in refused(tmp_path).message


def test_tied_weights_need_be_there_once(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    model = tied()
    state = model.state_dict()
    del state["1.weight"]
    save_file(state, tmp_path / "tied.safetensors")
    teacher, _ = load_teacher(tied, tmp_path / "tied.safetensors")
    assert torch.equal(teacher[1].weight, model[1].weight)


def test_building_a_teacher_draws_nothing_from_the_run(run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_teacher(net, run)
    assert torch.equal(torch.rand(3), expected)
