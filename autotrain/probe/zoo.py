"""Small layers of every sort, run forward and backward: where operators to time come from.

Their sizes span what models are made of: products from 16 to 2048 a side, convolutions from the
first layer of a network to its last, dense, grouped and depthwise, and tensors of three sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

Layer = tuple[Callable[..., torch.Tensor], list[torch.Tensor]]
_SIDES = (2, 16, 128, 1024), (16, 128, 1024), (16, 128, 1024)
_CONVOLUTIONS = (  # (samples, channels in, out, side, kernel, groups)
    (8, 3, 32, 64, 3, 1), (8, 16, 16, 64, 3, 1), (8, 64, 64, 32, 3, 1), (8, 64, 64, 8, 3, 1),
    (2, 64, 64, 8, 3, 1), (8, 128, 128, 16, 3, 1), (8, 256, 256, 8, 3, 1), (32, 256, 256, 4, 3, 1),
    (4, 512, 512, 4, 3, 1), (2, 512, 512, 2, 3, 1), (16, 512, 512, 4, 3, 1), (32, 32, 32, 32, 3, 1),
    (8, 16, 96, 32, 1, 1), (8, 96, 24, 32, 1, 1), (8, 64, 256, 16, 1, 1), (8, 256, 64, 8, 1, 1),
    (4, 24, 72, 8, 1, 1), (4, 96, 576, 2, 1, 1), (4, 576, 96, 2, 1, 1), (32, 32, 192, 8, 1, 1),
    (8, 480, 112, 4, 1, 1), (8, 1024, 256, 4, 1, 1), (8, 16, 96, 1, 1, 1), (32, 128, 32, 1, 1, 1),
    (4, 3, 64, 64, 7, 1), (8, 128, 128, 8, 3, 32), (16, 256, 256, 8, 3, 32),
    (2, 32, 32, 32, 3, 32), (16, 32, 32, 32, 3, 32), (8, 96, 96, 16, 3, 96), (4, 72, 72, 8, 3, 72),
    (4, 240, 240, 8, 5, 240), (32, 120, 120, 8, 5, 120), (4, 576, 576, 2, 5, 576),
    (16, 480, 480, 4, 5, 480), (4, 96, 96, 16, 7, 96), (24, 96, 96, 16, 7, 96),
    (4, 384, 384, 4, 7, 384), (24, 384, 384, 4, 7, 384),
)  # fmt: skip
# (samples, channels in, out, length, kernel, groups)
_OVER_TIME = (
    (8, 1, 32, 2000, 9, 1), (8, 64, 64, 250, 3, 1), (32, 64, 64, 250, 3, 1),
    (8, 64, 64, 500, 15, 64),
)  # fmt: skip
_ATTENTION = ((16, 64, 32), (64, 96, 32), (16, 256, 64), (32, 64, 16))
_RNN = (
    (8, 50, 80, 128),
    (4, 40, 80, 320),
    (16, 40, 640, 320),
    (32, 50, 256, 64),
    (48, 40, 80, 200),
)
_PLANES = (  # (samples, channels, height, width)
    (4, 16, 32, 32), (32, 16, 32, 32), (8, 64, 56, 56), (4, 64, 16, 16), (32, 64, 16, 16),
    (4, 128, 8, 8), (32, 128, 8, 8), (4, 512, 4, 4), (32, 512, 4, 4), (4, 512, 2, 2),
    (32, 512, 2, 2), (32, 256, 1, 1),
)  # fmt: skip
BYTES = (16 << 10, 512 << 10, 6 << 20)
POOL_BYTES = 96 << 20


class Pool:
    """Numbers to compute with, more than caches hold: who asks again gets others, as in a step."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        part = torch.randn(POOL_BYTES // 4 // 16, generator=generator)
        self.numbers = {torch.float32: part.repeat(16)}
        self.place = 0

    def like(
        self, sizes: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """Other numbers in that shape and order."""
        numbers = self.numbers.get(dtype)
        if numbers is None:
            numbers = self.numbers[dtype] = self.numbers[torch.float32].to(dtype)
        size = 1 + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
        if size > len(numbers):
            numbers = self.numbers[dtype] = numbers.repeat(-(-size // len(numbers)))
        if self.place + size > len(numbers):
            self.place = 0
        view = numbers.as_strided(sizes, strides, self.place)
        self.place += -(-size // 16) * 16
        return view

    def take(self, *shape: int) -> torch.Tensor:
        """Numbers about normal, for a layer to work on or with."""
        strides = torch.empty(shape, device="meta").stride()
        return self.like(shape, strides, torch.float32)


def products(pool: Pool) -> Iterator[Layer]:
    """Those that multiply matrices in one way or another."""
    take = pool.take
    for rows, columns, inner in itertools.product(*_SIDES):
        yield torch.mm, [take(rows, inner), take(inner, columns)]
    for batches, length, width in _ATTENTION:
        yield torch.bmm, [take(batches, length, width), take(batches, width, length)]
        heads = [take(batches // 4, 4, length, width) for _ in range(3)]
        yield functional.scaled_dot_product_attention, heads
    for samples, inner, outer, side, kernel, groups in _CONVOLUTIONS:
        pair = [take(samples, inner, side, side), take(outer, inner // groups, kernel, kernel)]
        yield _convolution(functional.conv2d, kernel, groups), pair
    for samples, inner, outer, length, kernel, groups in _OVER_TIME:
        pair = [take(samples, inner, length), take(outer, inner // groups, kernel)]
        yield _convolution(functional.conv1d, kernel, groups), pair
    for samples, frames, features, width in _RNN:
        layer = torch.nn.LSTM(features, width, batch_first=True)
        yield (lambda x, rnn=layer: rnn(x)[0]), [take(samples, frames, features)]


def _convolution(
    convolve: Callable[..., torch.Tensor], kernel: int, groups: int
) -> Callable[..., torch.Tensor]:
    return lambda x, weight: convolve(x, weight, None, 1, kernel // 2, 1, groups)


def by_bytes(pool: Pool) -> Iterator[Layer]:
    """Those that work through tensors, of each size."""
    for size in BYTES:
        yield from _of_size(size // 4, pool.take)
    for shape in _PLANES:
        yield from _on_planes(shape, pool.take)
    for rows, labels in ((64, 10), (512, 64), (768, 4096)):
        target = torch.arange(rows) % labels
        yield (lambda x, y=target: functional.cross_entropy(x, y)), [pool.take(rows, labels)]


def _on_planes(shape: tuple[int, ...], take: Callable[..., torch.Tensor]) -> Iterator[Layer]:
    """Layers that work through pictures plane by plane."""
    channels = shape[1]
    mean, var = torch.zeros(channels), torch.ones(channels)
    scale = [take(channels), take(channels)]
    yield (lambda x, w, b: functional.batch_norm(x, mean, var, w, b, True)), [take(*shape), *scale]
    if shape[2] > 1:
        yield (lambda x: functional.max_pool2d(x, 2)), [take(*shape)]
        yield (lambda x: functional.avg_pool2d(x, 2)), [take(*shape)]
        yield (lambda x: functional.adaptive_avg_pool2d(x, 1)), [take(*shape)]


def _of_size(numbers: int, take: Callable[..., torch.Tensor]) -> Iterator[Layer]:
    """Layers that work through a tensor of so many numbers."""
    channels, rows, width = max(numbers // 2048, 1), max(numbers // 256, 1), 256
    image, table = (8, channels, 16, 16), (rows, width)
    pair = [take(channels), take(channels)]
    yield (lambda x, w, b: functional.group_norm(x, 1, w, b)), [take(*image), *pair]
    yield (
        lambda x, w, b: functional.layer_norm(x, (width,), w, b),
        [take(*table), take(width), take(width)],
    )
    for layer in _ONE:
        yield layer, [take(*table)]
    for both in _TWO:
        yield both, [take(*table), take(*table)]
    index = torch.arange(rows).flip(0)
    yield (lambda w: functional.embedding(index, w)), [take(*table)]
    yield (lambda x: x[index]), [take(*table)]


_ONE: tuple[Callable[..., torch.Tensor], ...] = (
    functional.relu,
    functional.hardswish,
    functional.leaky_relu,
    functional.gelu,
    functional.silu,
    torch.sigmoid,
    torch.tanh,
    lambda x: functional.dropout(x, 0.1),
    lambda x: functional.softmax(x, -1),
    lambda x: functional.log_softmax(x, -1),
    lambda x: x.t().contiguous(),
    lambda x: x.view(1, -1, 4, 64).transpose(1, 2).contiguous(),
    lambda x: x.view(2, 4, -1, 16).transpose(1, 2).contiguous(),
    lambda x: x.sum(0),
    lambda x: x.mean(1),
    lambda x: x.sum(),
    lambda x: x.clone().add_(1.0),
    lambda x: x.clone().mul_(0.5),
    lambda x: x + torch.zeros_like(x),
)
_TWO: tuple[Callable[..., torch.Tensor], ...] = (
    torch.add,
    torch.mul,
    lambda x, y: torch.cat([x, y], 1),
    lambda x, y: torch.where(x > 0, x, y),
)
