"""Blocks computed again: the same numbers as without, and a model that nobody can tell apart."""

import copy

import pytest
import torch
import torchvision.models as vision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autotrain import recompute, repeats
from autotrain.errors import AutotrainError


class Residual(nn.Module):
    """Dropout, BatchNorm, and a residual that is written to in place."""

    def __init__(self, width=16, norm=True, drop=0.3):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.BatchNorm1d(width, momentum=None if drop else 0.1) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)

    def forward(self, data):
        return self.norm(data) + self.down(self.drop(self.up(data)).relu_())


class InPlace(nn.Module):
    """Writes to what it is given, of which the caller goes on to read."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, data):
        data.mul_(0.5)
        data[:, :3].add_(1.0)
        return self.down(self.up(data).sigmoid_())


class AroundInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.layers = nn.ModuleList(InPlace() for _ in range(2))

    def forward(self, data):
        data = self.first(data)
        for layer in self.layers:
            data = layer(data) + data
        return data


class Codebook(nn.Module):
    """Buffers, small and large, that every call changes, in place or by another in its place."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.register_buffer("codes", torch.randn(300, 1000))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, data):
        made = self.down(self.up(data).sigmoid()) + data * self.codes[0, :16].clone()
        made = made + self.mean + self.calls
        with torch.no_grad():
            self.codes.mul_(0.9).add_(0.1)
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * made.detach().mean(0)
        return made


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 32))
        self.down = nn.Linear(32, 16)

    def forward(self, data):
        return data + self.down(self.up(data).relu())


class Lstms(nn.Module):
    """Layers that hand on a state beside their output."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(16, 16) for _ in range(3))

    def forward(self, data):
        state = None
        for layer in self.layers:
            made, state = layer(data, state)
            data = data + made
        return data


class Named(nn.Module):
    """Blocks called by keyword that return dictionaries."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, *, data, scale=1.0):
            return {"data": data + scale * self.down(self.up(data).tanh()), "note": "kept"}

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(self.Layer() for _ in range(3))

    def forward(self, data):
        for layer in self.layers:
            data = layer(data=data, scale=0.5)["data"]
        return data


def transformer():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2), 3, None, False)


def plain():
    layers = [each for _ in range(9) for each in (nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU())]
    return nn.Sequential(*layers)


def vit():
    return vision.VisionTransformer(32, 8, 2, 2, 16, 32, dropout=0.1, num_classes=5)


def convnext():
    settings = [vision.convnext.CNBlockConfig(8, 16, 2), vision.convnext.CNBlockConfig(16, None, 2)]
    return vision.ConvNeXt(settings, stochastic_depth_prob=0.3, num_classes=5)


ROWS, PICTURES = (6, 16), (2, 3, 32, 32)
MODELS = {
    "residual": (lambda: nn.Sequential(*(Residual() for _ in range(3))), ROWS, 3),
    "in place": (AroundInPlace, ROWS, 2),
    "codebook": (lambda: nn.Sequential(*(Codebook() for _ in range(3))), ROWS, 3),
    "spectral": (lambda: nn.Sequential(*(Spectral() for _ in range(2))), ROWS, 2),
    "lstms": (Lstms, (5, 2, 16), 3),
    "named": (Named, ROWS, 3),
    "transformer": (transformer, (5, 2, 16), 3),
    "plain": (plain, ROWS, 3),
    "vit": (vit, PICTURES, 2),
    "convnext": (convnext, PICTURES, 4),
    "resnet18": (lambda: vision.resnet18(num_classes=5), PICTURES, 8),
}


def step(model, data, seed, dtype=None):
    """Loss, gradients and buffers after one step, all from that seed."""
    torch.manual_seed(seed)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = model(data).double().square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return loss.detach(), gradients, dict(model.named_buffers())


def assert_same(one, other):
    (loss, gradients, buffers), (again, regained, rebuffers) = one, other
    assert torch.equal(loss, again)
    assert gradients.keys() == regained.keys()
    for name, gradient in gradients.items():
        assert (gradient is None) == (regained[name] is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, regained[name], rtol=1e-12, atol=1e-12)
    for name, buffer in buffers.items():
        assert torch.equal(buffer, rebuffers[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_buffers_are_those_of_a_model_left_as_it_is(name, dtype):
    make, shape, count = MODELS[name]
    torch.manual_seed(0)
    left, data = make().train(), torch.randn(shape)
    if dtype is torch.float64:
        left, data = left.double(), data.double()
    other = copy.deepcopy(left)
    found = repeats.blocks(other)
    assert len(found) == count
    recompute.install(found)
    for seed in range(3):  # the first call is where a block is got to know
        assert_same(step(left, data, seed, dtype), step(other, data, seed, dtype))
        with torch.no_grad():
            for model in (left, other):
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(1e-4 * parameter.grad)


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["residual", "bare", "dry"]), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
)
def test_any_stack_of_blocks_computes_the_same(kinds, seed):
    options = {"residual": {}, "bare": {"norm": False}, "dry": {"drop": 0.0}}
    torch.manual_seed(seed)
    left = nn.Sequential(*(Residual(**options[kind]) for kind in kinds)).double()
    other, data = copy.deepcopy(left), torch.randn(4, 16, dtype=torch.float64)
    recompute.install(repeats.blocks(other))
    for number in range(2):
        assert_same(step(left, data, number), step(other, data, number))


def test_it_keeps_less_between_forward_and_backward():
    """What is saved for the backward pass is counted; a wrapper that does nothing would fail."""

    def saved(model):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(t.nbytes), t)[1], lambda t: t
        ):
            model(torch.randn(64, 16, requires_grad=True)).sum().backward()
        return sum(sizes)

    model = nn.Sequential(*(Residual() for _ in range(4)))
    before, found = saved(model), repeats.blocks(model)
    recompute.install(found)
    calls = []
    model[0].up.register_forward_hook(lambda *_: calls.append(1))
    saved(model)
    assert len(calls) == 2
    recompute.remove(found)
    assert saved(model) == before
    assert len(calls) == 3


def test_names_classes_and_copies_stay():
    model = nn.Sequential(*(Residual() for _ in range(3)))
    names, kind = list(model.state_dict()), type(model[0])
    found = repeats.blocks(model)
    recompute.install(found)
    assert list(model.state_dict()) == names
    assert isinstance(model[0], Residual)
    assert type(model[0]).__name__ == "Residual"
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert float(twin(torch.randn(4, 16)).detach().abs().sum()) == pytest.approx(0.0, abs=1e-5)
    assert float(model(torch.randn(4, 16)).abs().sum().detach()) > 0.1
    recompute.remove(found)
    assert type(model[0]) is kind


def test_evaluation_is_left_alone():
    model = nn.Sequential(*(Residual() for _ in range(2))).eval()
    recompute.install(repeats.blocks(model))
    with torch.no_grad():
        assert model(torch.randn(4, 16)).grad_fn is None


def test_a_block_with_a_cache_gets_a_sentence():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
            self.cache = []

        def forward(self, data):
            self.cache.append(data.detach())
            return self.down(self.up(torch.cat(self.cache)).tanh())[: len(data)]

    model = nn.Sequential(Cached(), Cached())
    recompute.install(repeats.blocks(model))
    loss = model(torch.randn(4, 16)).sum()
    with pytest.raises(AutotrainError, match="computed again") as caught, recompute.unlike():
        loss.backward()
    assert "cache" in caught.value.hint
