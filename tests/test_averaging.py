"""The averaged weights: their formula, what is averaged, and changing places with the weights."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from autotrain.averaging import Average, averaged_tensors


class Net(nn.Module):
    """A norm with statistics, a mask with infinities, a counter, and a part that is frozen."""

    def __init__(self):
        super().__init__()
        self.still = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))

    def forward(self, x):
        return self.head(self.norm(self.still(x))) + self.mask


@torch.no_grad()
def moved(model):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(4, 3, dtype=model.head.weight.dtype))


def test_what_is_trained_and_norms_statistics_are_averaged_and_nothing_else():
    names = ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert [*averaged_tensors(Net())] == [*names, "norm.running_mean", "norm.running_var"]


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_the_average_follows_the_formula_and_passes_over_steps_that_were_not_taken(kind):
    """In float64, against plain arithmetic; `bad` as a number and as a tensor."""
    torch.manual_seed(0)
    model, decay = Net().double(), 0.9
    average = Average(model, decay)
    expected = {name: t.detach().clone() for name, t in averaged_tensors(model).items()}
    for n in range(120):
        moved(model)
        bad = float(n % 7 == 3)
        average.update(kind(bad))
        d = min(decay, (1 + n) / (10 + n))
        if not bad:
            for name, live in averaged_tensors(model).items():
                expected[name] = d * expected[name] + (1 - d) * live.detach()
    for name, kept in average.tensors().items():
        torch.testing.assert_close(kept, expected[name], rtol=1e-12, atol=1e-12)
    assert average.updates == 120  # the warm-up reaches 0.9 at 80


def test_the_verdict_on_a_step_is_never_read():
    """A tensor without a value cannot be read; the update takes it all the same."""
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        Average(model, 0.9).update(torch.ones(1))


@pytest.mark.parametrize("fails", [False, True])
def test_the_weights_come_back_to_the_bit_whatever_happens(fails):
    torch.manual_seed(0)
    model = Net()
    average = Average(model, 0.99)
    moved(model)
    average.update()
    moved(model)
    own = {name: t.clone() for name, t in model.state_dict().items()}
    kept = {name: t.clone() for name, t in average.tensors().items()}
    places = {name: t.data_ptr() for name, t in model.state_dict().items()}
    try:
        with average.in_place():
            now = model.state_dict()
            assert all(torch.equal(now[name], kept[name]) for name in kept)
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert all(torch.equal(t, own[name]) for name, t in model.state_dict().items())
    assert all(torch.equal(t, kept[name]) for name, t in average.tensors().items())
    assert {name: t.data_ptr() for name, t in model.state_dict().items()} == places


class NoMemory(TorchDispatchMode):
    """The n-th operation that makes a tensor in memory of its own fails."""

    def __init__(self, last):
        super().__init__()
        self.left = last

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.left -= not (function.is_view or function._schema.is_mutable)
        if self.left == 0:
            raise torch.OutOfMemoryError("CUDA out of memory, injected")
        return function(*args, **(kwargs or {}))


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_that_runs_out_while_they_change_places_changes_nothing(dtype):
    """Before the first weight has moved, or not at all: in no order of strides, and to the bit."""
    torch.manual_seed(0)
    values = torch.randn(5, 3, dtype=dtype), torch.randn(2, 4, dtype=dtype).t(), torch.zeros(())
    model = nn.Module()
    model.several = nn.ParameterList([value.to(dtype) for value in values])
    average = Average(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0).mul_(-0.0 if parameter.ndim == 0 else 1.0)
    average.update()
    own, kept = ([t.detach().clone() for t in each] for each in (average.live, average._kept))

    def now():
        return [torch.view_as_real(t) if t.is_complex() else t.detach() for t in average.live]

    before, failed = [t.clone() for t in now()], 0
    for last in range(1, 9):
        look = average.in_place()
        try:
            with NoMemory(last):
                look.__enter__()
        except torch.OutOfMemoryError:
            failed += 1
        else:
            for live, mean in zip(average.live, kept, strict=True):
                assert torch.equal(live.detach(), mean.to(dtype))
            with NoMemory(1):
                look.__exit__(None, None, None)
        for one, other in zip(now(), before, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one.signbit(), other.signbit())
        for one, other in zip((*average.live, *average._kept), (*own, *kept), strict=True):
            assert torch.equal(one.detach(), other)
    assert failed == (len(own) if dtype == torch.bfloat16 else 0)


def test_weights_of_half_precision_are_averaged_in_fp32_and_lose_nothing_by_a_look():
    model = nn.Linear(4, 4).to(torch.bfloat16)
    average = Average(model, 0.999)
    for _ in range(50):
        with torch.no_grad():
            model.weight.add_(0.01)
        average.update()
    kept, own = average.tensors()["weight"].clone(), model.weight.detach().clone()
    assert kept.dtype == torch.float32
    assert not torch.equal(kept, kept.bfloat16().float())
    with average.in_place():
        assert torch.equal(model.weight, kept.bfloat16())
    assert torch.equal(average.tensors()["weight"], kept)
    assert torch.equal(model.weight, own)


def test_an_average_goes_on_from_what_was_kept_of_it():
    model = Net()
    one = Average(model, 0.9)
    moved(model)
    one.update()
    two = Average(Net(), 0.9)
    two.load({name: t.clone() for name, t in one.tensors().items()}, one.updates)
    assert all(torch.equal(a, b) for a, b in zip(one._kept, two._kept, strict=True))
    with pytest.raises(KeyError):
        two.load({}, 0)
