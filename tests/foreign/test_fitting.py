"""Which tensors of a file a model takes over."""

import logging

import pytest
import torch
from torch import nn

from autotrain.blocks.weights import load_weights
from autotrain.errors import AutotrainError
from autotrain.foreign import fitting


def net(width=8, classes=2):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


def fitted(model, given, path):
    """The model after it has taken over what fits."""
    load_weights(model, given, path)
    return model


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.net.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_taken_off(tmp_path, prefix):
    theirs, mine = net(), net()
    given = {prefix + name: value for name, value in theirs.state_dict().items()}
    given |= {"criterion.weight": torch.ones(2), "ema.0.weight": torch.zeros(8, 3)}
    fitted(mine, given, tmp_path)
    assert all(torch.equal(mine.state_dict()[n], v) for n, v in theirs.state_dict().items())


def test_names_of_a_stranger_cannot_write_to_the_terminal():
    theirs = {f"\x1b[2J\nevil{i}.w": torch.ones(1) for i in range(99)}
    told = fitting.told(fitting.kinds({}, theirs), theirs)
    assert told.isprintable()
    assert told.endswith("and 59 more parts")


def test_a_name_that_only_looks_prefixed_stays():
    own = {"net.a": torch.ones(1), "a": torch.ones(1)}
    assert set(fitting.named_as(own, own)) == {"net.a", "a"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_come_in_the_models_own(tmp_path, dtype):
    theirs, mine = net(), net()
    given = {name: value.to(dtype) if value.is_floating_point() else value
             for name, value in theirs.state_dict().items()}  # fmt: skip
    fitted(mine, given, tmp_path)
    assert mine[0].weight.dtype == torch.float32
    assert torch.allclose(mine[0].weight, theirs[0].weight, atol=1e-2)


def test_weights_that_lie_otherwise_in_memory_are_copied_by_value(tmp_path):
    theirs, mine = net(), net()
    given = theirs.state_dict()
    given["0.weight"] = given["0.weight"].t().contiguous().t()
    assert not given["0.weight"].is_contiguous()
    assert torch.equal(fitted(mine, given, tmp_path)[0].weight, theirs[0].weight)


def test_whole_numbers_are_not_taken_for_weights():
    kinds = fitting.kinds({"w": torch.ones(2)}, {"w": torch.ones(2, dtype=torch.int64)})
    assert kinds == {"w": "new, of another shape"}


def test_tied_weights_need_be_there_once(tmp_path, caplog):
    def tied():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    theirs, mine = tied(), tied()
    given = theirs.state_dict()
    del given["0.weight"]
    with caplog.at_level(logging.WARNING):
        fitted(mine, given, tmp_path)
    assert torch.equal(mine[0].weight, theirs[0].weight)
    assert mine[0].weight is mine[1].weight
    assert caplog.text == ""


def test_another_architecture_is_refused_with_what_was_there(tmp_path):
    given = {f"features.{i}.weight": torch.ones(3) for i in range(9)}
    with pytest.raises(AutotrainError, match=r"0 of the model's 9 tensors.*features\.\*: 9 left"):
        load_weights(net(), given, tmp_path)
