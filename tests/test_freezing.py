"""Frozen parameters: which ones, what their norms do, and what is said where a pattern is wrong."""

import copy

import pytest
import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.freezing import freeze, moves


def block(width):
    return nn.Sequential(nn.Conv1d(width, width, 3), nn.BatchNorm1d(width), nn.Dropout(0.5))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(block(2), block(2))
        self.head = nn.Linear(2, 3)


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_a_pattern_freezes_what_it_matches_and_nothing_else():
    model = Net()
    made = freeze(model, ["encoder.0.*", "*.bias"])
    assert trained(model) == ["encoder.1.0.weight", "encoder.1.1.weight", "head.weight"]
    assert len(made.parameters) == 7


def test_norms_of_frozen_layers_keep_their_statistics_whoever_calls_train():
    model = Net().train()
    freeze(model, ["encoder.0.*"])
    still, free = model.encoder[0][1], model.encoder[1][1]
    before = still.running_mean.clone(), free.running_mean.clone()
    model.eval()
    model.train()
    still.train()
    model.encoder(torch.randn(4, 2, 20))
    assert torch.equal(still.running_mean, before[0])
    assert not torch.equal(free.running_mean, before[1])
    assert (moves(still), moves(free)) == (False, True)
    # Dropout is no state of theirs: it goes on.
    assert model.encoder[0][2].training


def test_a_norm_that_still_learns_something_goes_on_gathering():
    model = Net().train()
    freeze(model, ["encoder.0.1.bias"])
    assert model.encoder[0][1].training


@pytest.mark.parametrize(("pattern", "still"), [("0.running_*", True), ("1.*", False)])
def test_a_norm_without_parameters_goes_by_its_statistics(pattern, still):
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2), nn.Linear(2, 1)).train()
    freeze(model, [pattern])
    assert model[0].training is not still


def test_tied_weights_are_frozen_by_either_name():
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["words"].weight
    freeze(model, ["head.weight"])
    assert trained(model) == ["head.bias"]


def test_a_copy_of_a_frozen_model_stays_frozen_by_itself():
    model = Net().train()
    freeze(model, ["encoder.*"])
    twin = copy.deepcopy(model).train()
    assert not twin.encoder[0][1].training
    assert trained(twin) == ["head.weight", "head.bias"]
    assert twin.encoder[0][1].train() is twin.encoder[0][1]


def test_thawing_undoes_it_and_no_more():
    model = Net().train()
    model.head.bias.requires_grad_(False)
    freeze(model, ["encoder.*", "head.bias"]).thaw()
    model.train()
    assert trained(model) == [name for name, _ in Net().named_parameters()][:-1]
    assert model.encoder[0][1].training


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["encodr.*"], r"'encodr\.\*' matches no parameter \(did you mean 'encoder\.\*'\?\)"),
        (["encoder"], r"did you mean 'encoder\.\*'"),
        (["encoder.*", "head.wieght", "tail"], r"'head\.wieght' .*'head\.weight'.*'tail' matches"),
        (["*"], "nothing is left to train: all 10 parameters"),
    ],
)
def test_a_wrong_pattern_is_one_error_with_near_names(patterns, said):
    with pytest.raises(AutotrainError, match=rf"train\.freeze: .*{said}"):
        freeze(Net(), patterns)


def test_what_the_task_itself_froze_counts_as_frozen():
    model = Net()
    model.head.requires_grad_(False)
    with pytest.raises(AutotrainError, match="nothing is left to train"):
        freeze(model, ["encoder.*"])
