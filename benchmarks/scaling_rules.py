"""How true the rules are that scale a learning rate with the batch, on noisy quadratic problems.

python benchmarks/scaling_rules.py [--optimizers adam,sgd] [--samples 48000] [--noise falling]

64 problems of 20 weights of unequal curvature, with noisy gradients, are trained at a batch of 32
and at k times that, for as many samples. Printed is how far the loss at four points of the run
strays from that at k = 1, in per cent (mean over the points, geometric), with the rate unscaled,
times sqrt(k) and times k; then with the rule of autotrain/plan/learning.py, its betas and eps too.
`seeds` is how far two runs stray that differ by their noise alone. One core, about 5 minutes.
"""

import argparse
import math

import torch

from autotrain.optimizer import OPTIMIZERS
from autotrain.plan import learning

PROBLEMS, WEIGHTS, BATCH = 64, 20, 32
RATES = {
    "adam": 2e-3, "nadam": 1e-3, "radam": 1e-3, "adamax": 2e-3, "rmsprop": 1e-3,
    "adadelta": 1.0, "adagrad": 3e-2, "sgd": 1e-2, "rprop": 1e-3,
}  # fmt: skip
TIMES = (0.25, 4, 8, 16)
POINTS = (0.1, 0.3, 0.6, 1.0)
CURVATURE = torch.logspace(0, -1.5, WEIGHTS)


def losses(
    name: str, rate: float, batch: int, samples: int, noise: str, seed: int, **more: object
) -> list[float]:
    """Mean loss over the problems at four points of a run of so many samples."""
    chance = torch.Generator().manual_seed(seed)
    weights = torch.zeros(PROBLEMS, WEIGHTS, requires_grad=True)
    extras = {"momentum": 0.9} if name == "sgd" else {}
    optimizer = OPTIMIZERS[name]([weights], lr=rate, **extras, **more)
    steps, found = samples // batch, []
    marks = {max(int(steps * point), 1) for point in POINTS}
    for step in range(1, steps + 1):
        off = weights.detach() - 1
        spread = 4.0 if noise == "flat" else 6.0 * (0.05 + off.abs())
        drawn = torch.randn(PROBLEMS, WEIGHTS, generator=chance)
        weights.grad = CURVATURE * off + spread / math.sqrt(batch) * drawn
        optimizer.step()
        if step in marks:
            found.append(0.5 * (CURVATURE * (weights.detach() - 1) ** 2).sum(1).mean().item())
    return found


def strays(first: list[float], second: list[float]) -> float:
    """How far one run is from another, in per cent."""
    apart = [abs(math.log(a / b)) for a, b in zip(first, second, strict=True)]
    return 100 * (math.exp(sum(apart) / len(apart)) - 1)


def by_rule(name: str, rate: float, times: float) -> tuple[float, dict[str, object]]:
    """The rate and what goes with it, as a plan has them."""
    extras: dict[str, object] = {}
    if name in learning.ADAM_LIKE:
        extras["betas"] = learning.scaled_betas(learning.BETAS, times)
    if name in learning.EPS:
        extras["eps"] = learning.scaled_eps(learning.EPS[name], name, times)
    return learning.scaled_rate(rate, name, BATCH, int(BATCH * times)), extras


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", default=",".join(RATES))
    parser.add_argument("--samples", type=int, default=48_000)
    parser.add_argument("--noise", choices=("flat", "falling"), default="flat")
    asked = parser.parse_args()
    print(
        f"{'optimizer':10} {'k':>5} {'seeds':>7} {'as is':>7} {'sqrt':>7} {'linear':>7} {'rule':>7}"
    )
    for name in asked.optimizers.split(","):
        rate, common = RATES[name], (asked.samples, asked.noise)
        usual = losses(name, rate, BATCH, *common, seed=0)
        chance = strays(usual, losses(name, rate, BATCH, *common, seed=1))
        for times in TIMES:
            batch = int(BATCH * times)
            plain = [losses(name, rate * f, batch, *common, seed=2) for f in (1, times**0.5, times)]
            scaled, extras = by_rule(name, rate, times)
            ours = losses(name, scaled, batch, *common, seed=2, **extras)
            row = [chance, *(strays(usual, made) for made in (*plain, ours))]
            print(
                f"{name:10} {times:5g} " + " ".join(f"{figure:7.1f}" for figure in row), flush=True
            )


if __name__ == "__main__":
    main()
