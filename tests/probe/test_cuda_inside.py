"""Bytes inside cuDNN's convolutions, by the rules that published peaks bear out."""

from __future__ import annotations

import pytest
import torch

from autotrain.probe.trace.counter import Counter
from autotrain.probe.trace.cuda_inside import FEW_PIXELS, SPREAD, inside

AMPERE, TURING, GEFORCE = (8, 0), (7, 5), (8, 6)
FORWARD, BACKWARD = "aten.convolution.default", "aten.convolution_backward.default"


def used(layer, shape, capability=AMPERE, dtype=torch.float32, last=False):
    """Bytes inside (the forward pass, the backward pass) of a layer's convolution."""
    rules, seen = inside(capability), {FORWARD: 0, BACKWARD: 0}

    def note(name):
        def read(args):
            seen[name] = rules[name](args)
            return 0

        return read

    given = torch.zeros(shape, dtype=dtype, requires_grad=True)
    layer = layer.to(dtype)
    if last:
        given = given.to(memory_format=torch.channels_last).detach().requires_grad_()
    counter = Counter()
    counter.inside = {name: note(name) for name in rules}
    with counter:
        layer(given).sum().backward()
    return seen[FORWARD], seen[BACKWARD]


def conv(*args, **options):
    return torch.nn.Conv2d(*args, bias=False, **options)


def test_the_gradient_of_the_input_is_made_from_channels_last_copies():
    given, weight, made = 4 * 8 * 32 * 32, 16 * 8 * 9, 4 * 16 * 32 * 32
    layer = conv(8, 16, 3, padding=1)
    assert used(layer, (4, 8, 32, 32)) == (0, 4 * (given + weight + made))
    assert used(layer, (4, 8, 32, 32), dtype=torch.bfloat16) == (0, 2 * (given + weight + made))


@pytest.mark.parametrize("capability", [TURING, GEFORCE])
def test_where_tf32_gains_nothing_only_half_precision_uses_tensor_cores(capability):
    layer = conv(8, 16, 3)
    assert used(layer, (4, 8, 32, 32), capability) == (0, 0)
    assert used(layer, (4, 8, 32, 32), capability, torch.bfloat16)[1] > 0


@pytest.mark.parametrize("layer", [conv(8, 16, 1), conv(8, 8, 3, groups=8), conv(8, 16, 1, 2)])
def test_products_of_matrices_and_depthwise_ones_copy_nothing(layer):
    assert used(layer, (4, 8, 32, 32)) == (0, 0)
    assert used(layer, (1, 8, 8, 8), GEFORCE) == (0, 0)


def test_tensors_that_are_channels_last_already_are_not_copied():
    assert used(conv(8, 16, 3), (4, 8, 32, 32), last=True) == (0, 0)


def test_grouped_convolutions_are_copied_like_dense_ones():
    given, weight, made = 4 * 8 * 32 * 32, 16 * 2 * 9, 4 * 16 * 32 * 32
    assert used(conv(8, 16, 3, padding=1, groups=4), (4, 8, 32, 32)) == (
        0,
        4 * (given + weight + made),
    )


def test_few_pixels_on_a_geforce_card_spread_the_weight():
    weight = 4 * 64 * 64 * 9
    layer = conv(64, 64, 3, padding=1)
    side = 16
    few = FEW_PIXELS // side**2
    assert used(layer, (few, 64, side, side), GEFORCE) == (SPREAD * weight, SPREAD * weight)
    assert used(layer, (few + 1, 64, side, side), GEFORCE)[0] == 0
    assert used(layer, (few, 64, side, side), AMPERE)[0] == 0
    line = torch.nn.Conv1d(64, 64, 3, padding=1, bias=False)
    assert used(line, (few, 64, side), GEFORCE)[0] == 0


def test_a_transposed_convolution_copies_in_its_forward_pass():
    layer = torch.nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, bias=False)
    given, weight, made = 4 * 8 * 32 * 32, 8 * 4 * 16, 4 * 4 * 64 * 64
    assert used(layer, (4, 8, 32, 32)) == (4 * (given + weight + made), 0)


def test_one_dimension_is_enough():
    layer = torch.nn.Conv1d(8, 16, 5, padding=2, bias=False)
    given, weight, made = 4 * 8 * 1000, 16 * 8 * 5, 4 * 16 * 1000
    assert used(layer, (4, 8, 1000)) == (0, 4 * (given + weight + made))
