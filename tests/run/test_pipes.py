"""What is in a micro-batch comes out of a worker's pipe as it went in."""

import pickle
from typing import NamedTuple

import numpy
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from autotrain.run.loading.pipes import packed, too_narrow


class Pair(NamedTuple):
    x: torch.Tensor
    name: str


KINDS = [
    torch.arange(6.0).reshape(2, 3),
    torch.arange(12).reshape(3, 4).t(),
    torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    torch.tensor([True, False]),
    torch.tensor(3.5),
    torch.empty(0, 4, dtype=torch.int16),
    torch.tensor([1 + 2j, 3 - 1j]).conj(),
    torch.ones(2, requires_grad=True),
    torch.nn.Parameter(torch.ones(2)),
]


@pytest.mark.parametrize("tensor", KINDS, ids=lambda t: f"{t.dtype}{[*t.shape]}".replace(" ", ""))
def test_a_tensor_of_any_kind_is_the_same_and_may_be_written(tensor):
    found = pickle.loads(packed(tensor))
    assert (type(found), found.dtype, found.shape) == (type(tensor), tensor.dtype, tensor.shape)
    assert torch.equal(found, tensor)
    if not found.requires_grad:
        found.zero_()


def test_what_holds_tensors_keeps_its_form():
    made = {"pair": Pair(torch.ones(2), "a"), "rows": [torch.zeros(1), None], "raw": numpy.ones(3)}
    found = pickle.loads(packed(made))
    assert isinstance(found["pair"], Pair)
    assert torch.equal(found["pair"].x, torch.ones(2))
    assert (found["rows"][1], found["raw"].tolist()) == (None, [1.0, 1.0, 1.0])
    sequence = pickle.loads(packed(pack_sequence([torch.ones(3, 2), torch.zeros(1, 2)])))
    assert isinstance(sequence, PackedSequence)
    assert sequence.batch_sizes.tolist() == [2, 1, 1]


def test_of_a_view_only_what_it_shows_travels():
    """A thousand rows of one tensor are not a thousand such tensors."""
    assert len(packed(torch.zeros(1 << 20)[5:7])) < 1000
    assert len(packed([*torch.zeros(1000, 100)])) < 1_000_000


def test_only_limits_of_the_system_count_as_narrow():
    assert too_narrow(OSError(24, "Too many open files"))
    assert too_narrow(RuntimeError("unable to resize file </torch_1_2_0> to the right size"))
    assert too_narrow(RuntimeError("can't start new thread"))
    assert not too_narrow(OSError(2, "No such file"))
    assert not too_narrow(ValueError("shared memory"))
