"""How far layers lie from the output, of models built as people build them."""

import torch
import torchvision
from torch import nn

from autotrain.depth import depths


def levels(model):
    """Depth -> the names there, the deepest first."""
    found = {}
    for name, depth in depths(model).items():
        found.setdefault(depth, []).append(name)
    assert sorted(found) == list(range(len(found)))
    return [found[depth] for depth in sorted(found, reverse=True)]


def test_a_sequence_of_layers_has_a_level_each_and_norms_go_with_the_layer_before():
    model = nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)
    )
    assert levels(model) == [
        ["0.weight", "0.bias", "1.weight", "1.bias"],
        ["3.weight", "3.bias"],
        ["4.weight", "4.bias"],
    ]


def test_a_norm_before_the_first_layer_is_at_the_bottom_with_it():
    found = depths(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Linear(8, 2)))
    assert (found["0.weight"], found["1.weight"], found["2.weight"]) == (2, 1, 0)


def test_a_residual_network_has_its_stem_its_eight_blocks_and_its_head():
    found = levels(torchvision.models.resnet18())
    assert len(found) == 10
    assert {name.split(".")[0] for name in found[0]} == {"conv1", "bn1"}
    assert {name.rpartition(".")[0] for name in found[-1]} == {"fc"}
    assert all(name.startswith("layer2.0.") for name in found[3])


def test_a_vision_transformer_has_its_embedding_its_blocks_and_its_head():
    model = torchvision.models.VisionTransformer(16, 8, 3, 2, 16, 32)
    found = levels(model)
    assert len(found) == 5
    assert {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= {*found[0]}
    assert all(name.startswith("encoder.layers.encoder_layer_1.") for name in found[2])
    assert {"encoder.ln.weight", "heads.head.weight"} <= {*found[-1]}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)


class Reader(nn.Module):
    """Named as text encoders are; what comes between two blocks goes with the later one."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleDict({"words": nn.Embedding(9, 8), "norm": nn.LayerNorm(8)})
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Attention() for _ in range(4))
        self.pooler, self.classifier = nn.Linear(8, 8), nn.Linear(8, 2)


def test_a_text_encoder_has_its_embeddings_its_layers_and_its_head():
    found = levels(Reader())
    assert len(found) == 6
    assert {name.split(".")[0] for name in found[0]} == {"embeddings"}
    assert all(name.startswith("encoder.layer.3.") for name in found[4])
    assert {name.split(".")[0] for name in found[-1]} == {"pooler", "classifier"}


def test_what_lies_between_two_blocks_goes_with_the_later_one():
    model = nn.Module()
    model.first, model.between = Attention(), nn.Linear(8, 8)
    model.second, model.head = Attention(), nn.Linear(8, 2)
    found = depths(model)
    assert found["between.weight"] == found["second.key.weight"] == 1
    assert found["first.key.weight"] == 2


def test_a_single_layer_is_the_top():
    assert {*depths(nn.Linear(2, 2)).values()} == {0}
    assert depths(torch.nn.ReLU()) == {}
