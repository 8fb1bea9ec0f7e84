"""How a model is run: its numbers and its names stay, whatever its form."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autotrain import prepare as prepares
from autotrain.prepare import convolutions, laid_out, prepare, run_as
from autotrain.schema import ModelSection

LAST = ModelSection(memory_format="channels_last")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(),
        nn.Linear(64, 5),
    )  # fmt: skip


def assert_same_step(left, other, batch, seen):
    for model, data in ((left, batch), (other, seen)):
        model.zero_grad()
        model(data).square().sum().backward()
    for one, two in zip(left.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5)
    for one, two in zip(left.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_channels_last_lays_weights_and_pictures_out_and_computes_the_same():
    left, other, batch = net(), net(), torch.randn(2, 3, 8, 8)
    form = prepare(other, LAST)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not other[0].weight.is_contiguous()
    pictures, labels = form.batch((batch, torch.zeros(2, 1, 4, 4, dtype=torch.long)))
    assert pictures.is_contiguous(memory_format=torch.channels_last)
    assert labels.is_contiguous()
    made = copy.deepcopy(other)[:4](pictures)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert_same_step(left, other, batch, pictures)


def test_volumes_go_by_their_own_format():
    model = nn.Conv3d(2, 4, 3)
    prepare(model, LAST)
    assert model.weight.is_contiguous(memory_format=torch.channels_last_3d)
    batch = laid_out({"scan": torch.randn(2, 2, 5, 5, 5), "row": torch.randn(2, 3)}, LAST)
    assert batch["scan"].is_contiguous(memory_format=torch.channels_last_3d)
    assert batch["row"].is_contiguous()
    assert convolutions(nn.Sequential(model, nn.Conv1d(2, 2, 3), nn.Linear(2, 2))) == 1


@pytest.mark.parametrize("fake", [False, True])
def test_a_form_that_is_tried_on_is_taken_off_again(fake):
    mode = FakeTensorMode()
    model = net()
    if fake:
        with mode:
            model = net()
    strides = {name: p.stride() for name, p in model.named_parameters()}
    kinds = [type(m) for m in model.modules()]
    both = ModelSection(memory_format="channels_last", activation_checkpointing=True)
    with run_as(model, both):
        assert model[0].weight.stride() != strides["0.weight"]
    assert {name: p.stride() for name, p in model.named_parameters()} == strides
    assert [type(m) for m in model.modules()] == kinds


def test_nothing_to_compute_again_is_said():
    assert prepare(net(), ModelSection(activation_checkpointing=True)).notes == [
        "the model has no repeated blocks: all activations are kept"
    ]


def test_where_nothing_can_be_compiled_it_runs_as_it_is():
    from torch._dynamo import config as dynamo
    from torch._inductor import config

    torch.compiler.reset()
    left, other = net(), net()
    names = list(other.state_dict())
    form = prepare(other, ModelSection(compile=True))
    missing = {"cpp.cxx": (None, "no-such-compiler"), "fx_graph_cache": False}
    with config.patch(missing), dynamo.patch(suppress_errors=True):
        for size in (4, 3):
            batch = torch.randn(size, 3, 8, 8)
            assert_same_step(left, other, batch, batch)
    assert list(other.state_dict()) == names
    assert len(form.notes) == 1
    assert form.notes[0].startswith("not compiled, and run as it is")
    assert form.compiled == 2
    assert copy.deepcopy(other)[0].weight is not other[0].weight


def test_what_is_computed_again_is_not_compiled_and_says_so():
    both = ModelSection(compile=True, activation_checkpointing=True)
    form = prepare(nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))), both)
    assert form.notes == ["not compiled: with model.activation_checkpointing it runs as it is"]


def test_a_model_with_nothing_to_compute_again_is_compiled_all_the_same():
    both = ModelSection(compile=True, activation_checkpointing=True)
    model = net()
    kind = type(model)
    form = prepare(model, both)
    assert form.notes == ["the model has no repeated blocks: all activations are kept"]
    assert type(model) is not kind
    assert type(model).forward is not kind.forward


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_it_computes_the_same(graphs, monkeypatch):
    """Asked to record, a CPU records nothing and computes it too; what comes out is a copy."""
    torch.compiler.reset()
    monkeypatch.setattr(prepares, "_insist_on_graphs", lambda *_, **__: None)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
            self.norm = nn.BatchNorm1d(16)

        def forward(self, data):
            return self.norm(data + self.down(self.up(data).relu()))

    torch.manual_seed(0)
    left = nn.Sequential(nn.Linear(16, 16), *(Block() for _ in range(10)))
    other = copy.deepcopy(left)
    names = list(left.state_dict())
    form = prepare(other, ModelSection(compile=True, cuda_graphs=graphs))
    for size in (4, 4, 3):
        batch = torch.randn(size, 16)
        assert_same_step(left, other, batch, batch)
    assert list(other.state_dict()) == names
    assert not form.notes
    assert form.compiled
