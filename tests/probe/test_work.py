"""What an operator costs like."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from autotrain.probe.trace.counter import Counter


def kinds(run):
    counter = Counter()
    with counter:
        run()
    return {work.kind for work in counter.work.done()}


def works(run, kind):
    counter = Counter()
    with counter:
        run()
    return [work for work in counter.work.done() if work.kind == kind]


def learned(layer, *shape):
    def run():
        layer(torch.randn(shape, requires_grad=True)).sum().backward()

    return run


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Linear(4, 5), (3, 4), {"matmul"}),
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8), {"convolution", "convolution_backward"}),
        (nn.Conv1d(4, 4, 3, groups=4), (2, 4, 8), {"depthwise", "depthwise_backward"}),
        (nn.BatchNorm2d(3), (2, 3, 8, 8), {"batch_norm", "batch_norm_backward"}),
        (nn.LayerNorm(8), (2, 8), {"layer_norm", "layer_norm_backward"}),
        (nn.GELU(), (2, 8), {"special"}),
        (nn.ReLU(), (2, 8), {"elementwise"}),
        (nn.ReLU(inplace=True), (2, 8), set()),
        (nn.MaxPool2d(2), (2, 3, 8, 8), {"pool", "pool_backward"}),
        (nn.Softmax(-1), (2, 8), {"softmax"}),
        (nn.Dropout(0.5), (2, 8), {"random"}),
        (lambda x: nn.LSTM(4, 5)(x)[0], (3, 2, 4), {"rnn", "rnn_backward"}),
        (lambda x: x.transpose(0, 1).contiguous(), (2, 8), {"transpose"}),
        (lambda x: torch.cat([x, x]), (2, 8), {"copy"}),
        (lambda x: x[torch.tensor([0, 1])], (2, 8), {"gather", "scatter"}),
        (lambda x: functional.cross_entropy(x, torch.tensor([0, 1])), (2, 8), {"softmax", "call"}),
    ],
)
def test_each_layer_is_of_its_kind(layer, shape, expected):
    if isinstance(layer, nn.ReLU) and layer.inplace:

        def run():
            layer(torch.randn(shape))

        assert kinds(run) >= {"elementwise_inplace"}
        return
    assert kinds(learned(layer, *shape)) >= expected


def test_the_shape_of_a_product_is_batches_rows_columns_inner():
    (found,) = works(lambda: torch.randn(2, 3, 4) @ torch.randn(2, 4, 5), "matmul")
    assert found.shape == (2, 3, 5, 4)
    assert found.flops == 2 * 2 * 3 * 5 * 4


def test_a_convolution_is_seen_as_a_product():
    run = learned(nn.Conv2d(6, 8, 3, padding=1, groups=2, bias=False), 5, 6, 7, 7)
    (forward,), (backward,) = works(run, "convolution"), works(run, "convolution_backward")
    assert forward.shape == backward.shape == (2, 5 * 7 * 7, 4, 3 * 9)
    assert forward.flops == 2 * 2 * 5 * 49 * 4 * 27
    assert backward.flops == 2 * forward.flops


def test_a_transposed_convolution_is_one_from_its_output_to_its_input():
    run = learned(nn.ConvTranspose2d(6, 3, 2, stride=2, bias=False), 5, 6, 4, 4)
    (forward,), (backward,) = works(run, "convolution"), works(run, "convolution_backward")
    assert forward.shape == backward.shape == (1, 5 * 16, 6, 3 * 4)


def test_an_lstm_is_the_product_of_each_of_its_steps():
    run = learned(lambda x: nn.LSTM(4, 5)(x)[0], 3, 2, 4)
    (forward,) = works(run, "rnn")
    assert forward.shape == (1, 2, 4 * 5, 4 + 5)


def test_equal_calls_are_counted_together_and_views_are_seen():
    def run():
        x = torch.randn(4, 4)
        for _ in range(3):
            x = (x * 2).view(16).view(4, 4)

    counter = Counter()
    with counter:
        run()
    found = {work.kind: work.calls for work in counter.work.done()}
    assert found["elementwise"] == 3
    assert found["view"] == 6


def test_the_dtype_is_what_is_computed_in():
    run = lambda: torch.randn(4, 4).bfloat16() @ torch.randn(4, 4).bfloat16()  # noqa: E731
    (found,) = works(run, "matmul")
    assert found.dtype == "bf16"
