"""Operators are timed one by one, on real tensors."""

import pytest
import torch

from autotrain.probe import timings
from autotrain.probe.zoo import Pool, products


@pytest.fixture(scope="module")
def measuring():
    """The timings, and the process's threads and random state before and after."""
    before = torch.get_num_threads(), torch.random.get_rng_state()
    found = timings.measure([1], ["fp32", "bf16"], 0.1)
    return found, before, (torch.get_num_threads(), torch.random.get_rng_state())


@pytest.fixture(scope="module")
def measured(measuring):
    return measuring[0]


def test_every_kind_a_model_is_made_of_is_there(measured):
    kinds = {timing.kind for timing in measured}
    assert kinds >= {
        "matmul", "convolution", "convolution_backward", "depthwise", "depthwise_backward",
        "attention", "attention_backward", "rnn", "rnn_backward", "elementwise", "special",
        "elementwise_inplace", "batch_norm", "batch_norm_backward", "layer_norm",
        "layer_norm_backward", "softmax", "pool", "pool_backward", "reduce", "copy", "transpose",
        "fill", "random", "gather", "scatter", timings.OVERHEAD,
    }  # fmt: skip


def test_times_are_positive_and_large_products_take_longer(measured):
    assert all(timing.seconds > 0 for timing in measured)
    products = sorted((t for t in measured if t.kind == "matmul"), key=lambda t: t.flops)
    assert products[-1].seconds > 5 * products[0].seconds


def test_nothing_of_the_process_changes(measuring):
    _, before, after = measuring
    assert after[0] == before[0]
    assert torch.equal(after[1], before[1])


def test_bf16_is_timed_for_products(measured):
    half = {timing.kind for timing in measured if timing.dtype == "bf16"}
    assert {"matmul", "convolution", "convolution_backward"} <= half


def test_the_pool_hands_out_other_numbers_each_time():
    pool = Pool()
    one, other = pool.take(1000), pool.take(1000)
    assert one.data_ptr() != other.data_ptr()
    assert 0.8 < float(one.std()) < 1.2
    assert sum(1 for _ in products(pool)) > 80
