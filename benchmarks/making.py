"""Milliseconds that a CPU's kernels take to make, by kind of layer and precision.

python benchmarks/making.py [--rounds 2]

Layers of different widths on samples of many lengths, no more kernels kept than a step needs: what
the first step of a length takes longer than the same step again is what making its kernels took.
Beside it what `autotrain.plan.kernels` reckons with. Nothing else should be running.
"""

import argparse
import os
import random
import statistics
from itertools import pairwise
from time import perf_counter

os.environ |= {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "60"}

import torch
from torch import nn

from autotrain.plan import kernels
from autotrain.schema import StepTrace, Work

WIDTHS = [64, 80, 96, 112, 128, 144]
LENGTHS, AGAIN = 60, 3


class Recurrent(nn.Module):
    """An LSTM's output alone."""

    def __init__(self, inner, outer, both=False):
        super().__init__()
        self.layer = nn.LSTM(inner, outer, batch_first=True, bidirectional=both)

    def forward(self, x):
        return self.layer(x)[0]


def chain(layer):
    """One layer after another, no two of the same shape."""
    return nn.Sequential(*(layer(a, b) for a, b in pairwise(WIDTHS)))


# Each with the shape of a batch of so many frames, its kind, and operators of that kind.
CASES = {
    "linear": (lambda: chain(nn.Linear), lambda n: (8, n, 64), "matmul", 15),
    "convolution, 5 frames": (
        lambda: chain(lambda a, b: nn.Conv1d(a, b, 5, padding=2)),
        lambda n: (8, 64, n), "convolution", 5,
    ),
    "convolution, 1 frame": (
        lambda: chain(lambda a, b: nn.Conv1d(a, b, 1)), lambda n: (8, 64, n), "convolution", 5,
    ),
    "convolution, 3 x 3": (
        lambda: chain(lambda a, b: nn.Conv2d(a // 4, b // 4, 3, padding=1)),
        lambda n: (4, 16, n, 40), "convolution", 5,
    ),
    "depthwise, 9 frames": (
        lambda: nn.Conv1d(64, 64, 9, padding=4, groups=64),
        lambda n: (8, 64, n), "depthwise", 1,
    ),
    "LSTM": (lambda: chain(Recurrent), lambda n: (8, n, 64), "rnn", 5),
    "LSTM, both ways": (lambda: Recurrent(64, 64, both=True), lambda n: (8, n, 64), "rnn", 1),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    for number in range(asked.rounds):
        for dtype in ("fp32", "bf16"):
            for name, (build, shape, kind, operators) in CASES.items():
                made, again = measured(build(), shape, dtype, seed=number)
                said = reckoned(kind, dtype, operators)
                print(f"{dtype} {name:22} made {made * 1e3:6.2f} ms, reckoned {said * 1e3:6.2f}; "
                      f"the step again {again * 1e3:6.2f}", flush=True)  # fmt: skip


def measured(net, shape, dtype, seed):
    """Medians over lengths: what the first step takes longer, and the step again, in seconds."""
    draw, first, again = random.Random(seed), [], []

    def step(frames):
        batch = torch.randn(*shape(frames))
        begun = perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            out = net(batch)
        out.float().sum().backward()
        net.zero_grad()
        return perf_counter() - begun

    for _ in range(5):
        step(60)
    for _ in range(LENGTHS):
        frames = draw.randint(40, 160)
        begins, usual = step(frames), statistics.median(step(frames) for _ in range(AGAIN))
        first.append(begins - usual)
        again.append(usual)
    return statistics.median(first), statistics.median(again)


def reckoned(kind, dtype, operators):
    """What a plan says of so many operators of different shapes and their gradients."""
    kinds = [kind] if kind == "matmul" else [kind, f"{kind}_backward"]
    work = tuple(
        Work(each, dtype, 1, 1.0, 1.0, (1, 8, place + 1, 8))
        for each in kinds
        for place in range(operators)
    )
    trace = StepTrace(
        micro_batch=8, dtype=dtype, peak_bytes=1, accumulate_peak_bytes=1, evaluate_peak_bytes=1,
        batch_bytes=1, matmul_flops=0.0, convolution_flops=0.0, moved_bytes=1.0, ops=1, work=work,
    )  # fmt: skip
    return kernels.of_one(trace).seconds


if __name__ == "__main__":
    main()
