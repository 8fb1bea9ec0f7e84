"""Copies that a checkpoint is written from, and what is said of many tensors at once."""

import pytest
import torch

from autotrain.run.keeping.copies import SMALL_BYTES, all_finite, own_copies, own_copy

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


def strange():
    """Small and large tensors of many kinds, some strided, conjugate, empty or views."""
    large = torch.randn(SMALL_BYTES // 4 + 1)
    return [
        torch.randn(3, 5), large, torch.tensor(7.0), torch.empty(0, 4), torch.arange(6),
        torch.randn(4, 6).t(), torch.randn(8)[::2], torch.randn(3, dtype=torch.complex64).conj(),
        torch.tensor([True, False]), torch.randn(9).bfloat16(), torch.nn.Parameter(torch.randn(2)),
        torch.ones(2).expand(5, 2), large[:3], torch.randn(2, 3, 4, 4).contiguous(
            memory_format=torch.channels_last),
    ]  # fmt: skip


def test_copies_are_those_of_each_alone_and_share_nothing_with_it():
    values = strange()
    theirs = {value.untyped_storage().data_ptr() for value in values if value.numel()}
    for made, value in zip(own_copies(values), values, strict=True):
        assert made.is_contiguous()
        assert not made.requires_grad
        assert made.untyped_storage().data_ptr() not in theirs
        assert (made.dtype, made.shape) == (value.dtype, value.shape)
        assert torch.equal(made, own_copy(value))
        assert torch.equal(made, value)


def test_what_lies_beside_a_weight_may_be_infinite():
    weight, mask = own_copies([torch.ones(3), torch.tensor([0.0, -float("inf")])])
    assert weight._base is mask._base is not None
    assert all_finite([weight])
    assert not all_finite([weight, mask])
    weight[1] = float("nan")
    assert not all_finite([weight])
