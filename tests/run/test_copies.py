"""Copies that a checkpoint is written from, and what is said of many tensors at once."""

import pytest
import torch

from autotrain.run.keeping.copies import all_finite, own_copy

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("count", [1, 7, 10_003])
def test_one_value_that_is_not_finite_is_found_anywhere(dtype, bad, count):
    for at in {0, count // 2, count - 1}:
        value = torch.randn(count).to(dtype)
        assert all_finite([value])
        value[at] = bad
        assert not all_finite([torch.ones(3), value])
        assert not all_finite([value[None].expand(3, count).t()])


def test_what_cannot_be_otherwise_is_finite():
    assert all_finite([torch.empty(0), torch.tensor([1, 2])])


class Own(torch.Tensor):
    """A kind of tensor that somebody made, whose operations give that kind."""


def strange():
    """Tensors of many kinds, some strided, conjugate, negated, empty or views."""
    large = torch.randn(8193)
    conjugate = torch.randn(3, dtype=torch.complex64).conj()
    return [
        torch.randn(3, 5), large, torch.tensor(7.0), torch.empty(0, 4), torch.arange(6),
        torch.randn(4, 6).t(), torch.randn(8)[::2], conjugate, conjugate.imag,
        torch.tensor([True, False]), torch.randn(9).bfloat16(), torch.nn.Parameter(torch.randn(2)),
        torch.ones(2).expand(5, 2), large[:3], torch.randn(2, 3, 4, 4).contiguous(
            memory_format=torch.channels_last), torch.randn(3).as_subclass(Own),
    ]  # fmt: skip


def test_copies_are_those_of_each_alone_and_share_nothing_with_it():
    values = strange()
    theirs = {value.untyped_storage().data_ptr() for value in values if value.numel()}
    for value in values:
        made = own_copy(value)
        assert type(made) is torch.Tensor
        assert made.untyped_storage().nbytes() == made.nbytes
        assert not any((made.requires_grad, made.is_conj(), made.is_neg()))
        assert made.untyped_storage().data_ptr() not in theirs
        assert (made.dtype, made.shape) == (value.dtype, value.shape)
        assert torch.equal(made, value.as_subclass(torch.Tensor))
