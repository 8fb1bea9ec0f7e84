"""Which parts of a model are its repeated blocks, by nothing but its structure."""

from collections import Counter

import pytest
import torch
import torchvision.models as vision
from torch import nn

from autotrain.repeats import blocks


def kinds(model):
    return dict(Counter(type(block.module).__name__ for block in blocks(model)))


FOUND = {
    "resnet50": {"Bottleneck": 16},
    "vit_b_16": {"EncoderBlock": 12},
    "convnext_tiny": {"CNBlock": 18},
    "densenet121": {"_DenseLayer": 58},
    "efficientnet_b0": {"MBConv": 16},  # its first stage has only one
    "swin_t": {"SwinTransformerBlock": 12},
    "squeezenet1_0": {"Fire": 8},
    # Branches of single convolutions are no blocks: little is inside.
    "inception_v3": {"InceptionA": 3, "InceptionC": 4, "InceptionE": 2},
}


@pytest.mark.parametrize("name", FOUND)
def test_of_models_that_everybody_knows(name):
    more = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        assert kinds(vision.get_model(name, **more)) == FOUND[name]


def test_of_a_transformer_both_stacks_and_not_their_attentions():
    found = kinds(nn.Transformer(16, 2, 2, 3, 32, batch_first=True))
    assert found == {"TransformerEncoderLayer": 2, "TransformerDecoderLayer": 3}


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)


class Tower(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(depth))


class Twins(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.left, self.right = Tower(depth), Tower(depth)


def test_of_two_towers_the_layers():
    found = blocks(Twins(3))
    assert [block.name for block in found][:2] == ["left.layers.0", "left.layers.1"]
    assert kinds(Twins(3)) == {"Layer": 6}


def test_a_module_that_stands_in_two_places_is_one_block():
    layer = Layer()
    assert len(blocks(nn.Sequential(layer, layer, Layer()))) == 2


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(8, 8, 3),
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
        nn.ModuleList(nn.LSTMCell(8, 8) for _ in range(3)),
        nn.ModuleList(nn.LSTM(8, 8, 2, dropout=0.1) for _ in range(3)),  # cuDNN's own dropout
    ],
    ids=["lstm", "three layers", "cells", "dropout inside"],
)
def test_of_some_models_none(model):
    assert blocks(model) == ()


def test_a_plain_sequence_is_cut_into_stretches_that_cover_it():
    layers = [each for _ in range(10) for each in (nn.Linear(8, 8), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers)
    found = blocks(model)
    assert [(block.start, block.stop) for block in found] == [(0, 7), (7, 13), (13, 21)]
    assert sum(len(block.modules()) for block in found) == len(model)
