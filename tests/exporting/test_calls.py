"""How a task calls its model: caught as it is, told apart by what changes, and made flat."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.exporting.calls import Flat, axes_of, caught, fits, names_of, only

Pair = namedtuple("Pair", "sound frames")


class Nested(nn.Module):
    def forward(self, pair, *, table=None, scale=1.0):
        return {"a": scale * pair.sound.cumsum(1), "b": [pair.frames + 1, table]}


def call_of(samples, time, model=None):
    torch.manual_seed(samples)
    pair = Pair(torch.randn(samples, time, 2), torch.full((samples,), time))
    model = model or Nested()
    return caught(model, samples, lambda: model(pair, table=torch.eye(3), scale=2.0))


def test_a_call_is_kept_as_it_was_made_and_can_be_made_again_flat():
    model, call = Nested(), call_of(3, 5)
    assert call.shapes == [[3, 5, 2], [3], [3, 3]]
    assert [list(t.shape) for t in call.answer] == [[3, 5, 2], [3], [3, 3]]
    for mine, wanted in zip(Flat(model, call)(*call.tensors), call.answer, strict=True):
        assert torch.equal(mine, wanted)
    other = call_of(2, 7)
    assert torch.equal(Flat(model, call)(*other.tensors)[0], other.answer[0])
    assert names_of(model, call) == ["pair_0", "pair_1", "table"]


def test_a_model_that_changes_what_it_is_given_is_caught_before_it_does():
    model = nn.ReLU(inplace=True)
    given = torch.tensor([[-1.0, 2.0]])
    call = caught(model, 1, lambda: model(given))
    assert call.tensors[0].tolist() == [[-1.0, 2.0]]
    assert call.answer[0].tolist() == [[0.0, 2.0]]


def test_the_first_of_several_calls_counts():
    model = nn.Linear(2, 1)
    call = caught(model, 4, lambda: (model(torch.zeros(4, 2)), model(torch.zeros(9, 2))))
    assert call.shapes == [[4, 2]]


def test_sizes_that_change_alike_have_one_name():
    calls = [call_of(3, 5), call_of(2, 7), call_of(1, 4)]
    axes = axes_of(calls)
    assert axes == [{0: "batch", 1: "length"}, {0: "batch"}, {}]
    assert only(axes, "batch") == [{0: "batch"}, {0: "batch"}, {}]
    assert fits(calls[1], calls[0], axes)
    assert not fits(calls[1], calls[0], only(axes, "batch"))
    assert fits(call_of(6, 5), calls[0], only(axes, "batch"))


class Two(nn.Module):
    def forward(self, a, b):
        return a.sum() + b.sum()


def test_two_lengths_have_two_names():
    model = Two()
    calls = [
        caught(model, n, lambda n=n, x=x, y=y: model(torch.zeros(n, x), torch.zeros(n, y)))
        for n, x, y in ((3, 5, 8), (2, 6, 4))
    ]
    assert axes_of(calls) == [{0: "batch", 1: "length"}, {0: "batch", 1: "length_2"}]


@pytest.mark.parametrize(
    ("model", "use", "says"),
    [
        (nn.Linear(2, 2), lambda m: m.weight.sum(), "never calls the model itself"),
        (nn.Dropout(0.5), lambda m: m(torch.ones(4, 8)), "differ from call to call"),
        (nn.Identity(), lambda m: m(3), "given no tensor"),
    ],
)
def test_a_call_that_cannot_be_exported_is_refused_with_the_reason(model, use, says):
    with pytest.raises(AutotrainError, match=says):
        caught(model, 4, lambda: use(model))
