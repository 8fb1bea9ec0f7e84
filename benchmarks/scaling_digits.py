"""How true the rule for AdamW is at another batch, on a real network: scikit-learn's digits.

python benchmarks/scaling_digits.py [--rate 1e-3] [--epochs 12] [--seeds 3]

A perceptron with two hidden layers is trained at a batch of 16 and at k times that, for as many
epochs, cosine with a tenth to warm up. Printed is how far the training loss at a quarter, at half
and at the end, and the validation loss at the end, stray from those at k = 1, in per cent
(geometric means over seeds and figures), with the rate as it is, times sqrt(k), and times k; then
with all that a plan scales: rate, betas, eps, weight decay. One core, about 4 minutes.
"""

import argparse
import math

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from autotrain.plan import learning

BATCH, DECAY, TRAIN = 16, 0.01, 1408
TIMES = (0.25, 4, 16)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All of them, shuffled: [1797, 64] from 0 to 1, and [1797] classes."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data / 16, dtype=torch.float32)[order], torch.tensor(data.target)[
        order
    ]


def network() -> nn.Module:
    """[batch, 64] to [batch, 10]."""
    hidden = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(128, 10))


def losses(
    data: tuple[torch.Tensor, torch.Tensor],
    batch: int,
    epochs: int,
    seed: int,
    lr: float,
    **more: object,
) -> list[float]:
    """Training loss at three points, validation loss at the end."""
    inputs, labels = data
    torch.manual_seed(seed)
    model, found = network(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, **{"weight_decay": DECAY, **more})
    total = epochs * (TRAIN // batch)
    warmup, step = max(total // 10, 1), 0
    for epoch in range(epochs):
        order = torch.randperm(TRAIN)
        for start in range(0, TRAIN - batch + 1, batch):
            step += 1
            share = 0.505 + 0.495 * math.cos(math.pi * step / total)
            optimizer.param_groups[0]["lr"] = lr * min(step / warmup, 1) * share
            chosen = order[start : start + batch]
            optimizer.zero_grad()
            cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
        if epoch in (epochs // 4, epochs // 2, epochs - 1):
            found.append(cross_entropy(model(inputs[:TRAIN]), labels[:TRAIN]).item())
    return [*found, cross_entropy(model(inputs[TRAIN:]), labels[TRAIN:]).item()]


def typical(runs: list[list[float]]) -> list[float]:
    """Geometric means over runs."""
    return [
        math.exp(sum(map(math.log, column)) / len(column)) for column in zip(*runs, strict=True)
    ]


def strays(first: list[float], second: list[float]) -> float:
    """How far one is from the other, in per cent."""
    apart = [abs(math.log(a / b)) for a, b in zip(first, second, strict=True)]
    return 100 * (math.exp(sum(apart) / len(apart)) - 1)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    data, rate = digits(), asked.rate

    def curve(batch: int, lr: float, first: int = 0, **more: object) -> list[float]:
        seeds = range(first, first + asked.seeds)
        return typical([losses(data, batch, asked.epochs, seed, lr, **more) for seed in seeds])

    usual = curve(BATCH, rate)
    chance = strays(usual, curve(BATCH, rate, first=100))
    print(f"other seeds alone: {chance:.1f} %")
    print(f"{'k':>5} {'as is':>7} {'sqrt':>7} {'linear':>7} {'rule':>7}")
    for times in TIMES:
        batch = int(BATCH * times)
        plain = [curve(batch, rate * factor) for factor in (1, times**0.5, times)]
        ours = curve(
            batch,
            learning.scaled_rate(rate, "adamw", BATCH, batch),
            betas=learning.scaled_betas(learning.BETAS, times),
            eps=learning.scaled_eps(1e-8, "adamw", times),
            weight_decay=learning.scaled_decay(DECAY, "adamw", times),
        )
        figures = [strays(usual, made) for made in (*plain, ours)]
        print(f"{times:5g} " + " ".join(f"{figure:7.1f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
