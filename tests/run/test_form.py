"""A run of a model in another form: same names on the disk, and resumed to the bit."""

import json

import pytest
import torch
from torch import nn

from autotrain.events import Step, Warned
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train
from autotrain.task import Task

from .plans import make_plan


class Pictures(torch.utils.data.Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.pixels = torch.randn(30, 3, 8, 8, generator=generator)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index], int(self.pixels[index].mean() > 0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.2)

    def forward(self, data):
        return data + self.drop(self.norm(self.two(self.one(data).relu())))


def net():
    blocks = (Block() for _ in range(3))
    return nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.Flatten(), nn.Linear(8 * 36, 2))


def task():
    return Task.classification(model=net, train=Pictures())


def run(directory, form, **more):
    directory.mkdir(exist_ok=True)
    # Fused walks through parameter, gradient and states by address: strides have to agree.
    optimizer = {"implementation": "fused"}
    plan = make_plan(model=form, optimizer=optimizer)
    events = list(train(plan, task(), directory, task_file=directory / "task.py", **more))
    return events, checkpoint.load(checkpoint.folder(directory, events[-1].step))


LAST = {"memory_format": "channels_last"}
AGAIN = {"activation_checkpointing": True}


def assert_same_bits(one, other):
    for kind in ("model", "optimizer"):
        tensors, others = getattr(one, kind).tensors, getattr(other, kind).tensors
        assert tensors.keys() == others.keys()
        assert all(torch.equal(value, others[name]) for name, value in tensors.items())


@pytest.mark.parametrize("form", [LAST, AGAIN, LAST | AGAIN], ids=["last", "again", "both"])
def test_stopped_and_resumed_it_goes_as_it_would_have_gone(tmp_path, form):
    _, whole = run(tmp_path / "whole", form)
    run(tmp_path / "parts", form, max_steps=4)
    events, parts = run(tmp_path / "parts", form, resume=True)
    assert_same_bits(whole, parts)
    assert not [e for e in events if isinstance(e, Warned)]
    assert set(parts.model.tensors) == set(net().state_dict())


def test_computed_again_it_learns_the_same_to_the_bit_and_may_be_switched(tmp_path):
    _, plain = run(tmp_path / "plain", {})
    _, again = run(tmp_path / "again", AGAIN)
    assert_same_bits(plain, again)
    run(tmp_path / "switched", {}, max_steps=4)
    events, switched = run(tmp_path / "switched", AGAIN, resume=True)
    assert_same_bits(plain, switched)
    assert not [e for e in events if isinstance(e, Warned)]


def test_another_format_on_resume_is_told(tmp_path):
    run(tmp_path / "run", {}, max_steps=4)
    events, _ = run(tmp_path / "run", LAST, resume=True)
    (told,) = [e.message for e in events if isinstance(e, Warned)]
    assert "model.memory_format was contiguous and is channels_last" in told
    assert "rounding" in told


def test_what_cannot_be_compiled_is_one_warning_and_no_end(tmp_path):
    from torch._dynamo import config as dynamo
    from torch._inductor import config

    torch.compiler.reset()
    _, plain = run(tmp_path / "plain", {})
    missing = {"cpp.cxx": (None, "no-such-compiler"), "fx_graph_cache": False}
    with config.patch(missing), dynamo.patch(suppress_errors=True):
        events, made = run(tmp_path / "compiled", {"compile": True})
    (told,) = [e.message for e in events if isinstance(e, Warned)]
    assert told.startswith("not compiled")
    assert events[-1].reason == "finished"
    assert plain.model.tensors.keys() == made.model.tensors.keys()
    # The steps in which something was compiled are not what a step takes.
    first = next(e for e in events if isinstance(e, Step))
    assert first.step_seconds < 1.0
    assert json.loads(json.dumps(made.state["model"]))["compile"] is True
