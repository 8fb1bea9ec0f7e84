"""What is said of many tensors at once."""

import pytest
import torch

from autotrain.run.keeping.tensors import all_finite

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("count", [1, 7, 10_003])
def test_one_value_that_is_not_finite_is_found_anywhere(dtype, bad, count):
    for at in {0, count // 2, count - 1}:
        value = torch.randn(count).to(dtype)
        assert all_finite({"good": value})
        value[at] = bad
        assert not all_finite({"good": torch.ones(3), "bad": value})
        assert not all_finite({"strided": value[None].expand(3, count).t()})


def test_what_cannot_be_otherwise_is_finite():
    assert all_finite({"none": torch.empty(0), "whole": torch.tensor([1, 2])})
