"""Invented runs of other shapes than those in `invented`."""

import math
import random

from invented import Made, constant, converged, cosine, overfitting, plateau


def few_evaluations(seed):
    """Overfitting, seen by five evaluations."""
    return overfitting(seed, epochs=30, eval_every=6, valid_noise=0.02, keeps=0.0)


def by_accuracy(seed):
    """Overfitting, judged by an accuracy that falls again."""
    draw = random.Random(seed)
    turn, fall = draw.uniform(0.2, 0.5), draw.uniform(0.05, 0.2)

    def accuracy(x):
        return 0.1 + 0.8 * (1 - math.exp(-12 * min(x, turn))) - fall * max(x - turn, 0)

    return overfitting(seed, metric=("accuracy", "higher", accuracy, 0.004))


def step_up(seed):
    """Validation is low for a while, then jumps up and stays there."""
    draw = random.Random(seed)
    turn = draw.uniform(0.3, 0.6)

    def train(x):
        return 1.5 * math.exp(-6 * x) + 0.01

    def valid(x):
        return 0.4 + 1.2 * math.exp(-15 * x) + (0.3 if x > turn else 0.0)

    return Made(seed, train, valid, epochs=draw.choice((20, 40, 60)))


def left_behind(seed):
    """Validation stands still, high, while training goes to nothing."""
    draw = random.Random(seed)
    high = draw.uniform(0.6, 1.2)
    return Made(
        seed,
        lambda x: 2.0 * math.exp(-7 * x) + 0.002,
        lambda x: high + 1.2 * math.exp(-14 * x),
        epochs=draw.choice((20, 40, 80)),
    )


def noisy_plateau(seed):
    """Log points that scatter by a tenth, evaluations by three percent."""
    return plateau(seed, noise=0.1, valid_noise=0.03, epochs=50, per_epoch=20)


def plateau_in_steps(seed):
    """It falls in two steps, then nothing more."""
    draw = random.Random(seed)
    first, second = draw.uniform(0.05, 0.1), draw.uniform(0.15, 0.3)

    def train(x):
        return 2.0 - 0.5 * (x > first) - 0.4 * (x > second)

    return Made(seed, train, lambda x: 1.05 * train(x), epochs=40, lr=constant)


def unvalidated_plateau(seed):
    return plateau(seed, eval_every=10**6, epochs=30)


def language_model(seed):
    """A power law under a cosine, as of a language model that is trained to the end of its rate."""
    draw = random.Random(seed)
    floor, power = draw.uniform(1.5, 3.0), draw.uniform(0.4, 0.6)

    def train(x):
        return floor + 7 * (1 + 2000 * x) ** -power + 0.3 * cosine(x)  # which a high rate costs

    return Made(
        seed,
        train,
        lambda x: train(x) + 0.05,
        epochs=draw.choice((20, 50)),
        per_epoch=100,
        lr=cosine,
        scale=1.0,
    )


def dropout(seed):
    """Validation below training, since training drops out: all is well."""
    draw = random.Random(seed)

    def valid(x):
        return 0.05 + 2 * math.exp(-8 * x)

    return Made(seed, lambda x: 1.5 * valid(x), valid, epochs=draw.choice((30, 60)))


def noisy_but_fine(seed):
    """A small validation set: figures scatter by a tenth and wander, and do not rise."""
    return converged(seed, valid_noise=0.1, keeps=random.Random(seed).choice((0.0, 0.5)), noise=0.1)


def warm_start(seed):
    """The loss rises during warm-up, then falls as it should."""

    def train(x):
        return (
            1.0 + 0.4 * math.sin(20 * x) if x < 0.157 else 0.05 + 0.95 * math.exp(-8 * (x - 0.157))
        )

    return Made(seed, train, lambda x: 1.1 * train(x), epochs=40, lr=cosine)


def log_likelihood(seed):
    """Losses below zero that level off."""
    draw = random.Random(seed)
    low = draw.uniform(-4, -1)

    def train(x):
        return low + 3.0 * math.exp(-12 * x)

    return Made(
        seed,
        train,
        lambda x: train(x) + 0.05,
        epochs=40,
        scale=1.0,
        lr=cosine,
        noise=0.01,
        valid_noise=0.01,
    )


def one_nan(seed):
    """A single NaN in the whole run."""
    at = random.Random(seed).randint(20, 180)

    def spoil(step, _total, loss, _draw):
        return math.nan if step == at else loss

    return converged(seed, epochs=20, per_epoch=10, log_every=1, spoil=spoil)


def late_data(seed):
    """A loader that cannot keep up from the middle on."""
    draw = random.Random(seed)
    count = [0]

    def wait():
        count[0] += 1
        return draw.uniform(0.4, 0.7) if count[0] > 300 else draw.uniform(0.0, 0.1)

    return converged(seed, epochs=60, per_epoch=10, log_every=1, wait=wait)


def bursts(seed):
    """A loader that is late now and then: a tenth of the time in all."""
    draw = random.Random(seed)
    return converged(seed, wait=lambda: 0.9 if draw.random() < 0.08 else 0.01)


def short(seed):
    """Six log points of a run that was meant to be long."""
    return converged(seed, epochs=100, per_epoch=10, log_every=1, stop_at=0.006, end="max_steps")


FINE = {"converged", "improving"}
EXPECTED = {
    few_evaluations: {"overfitting"}, by_accuracy: {"overfitting"}, step_up: {"overfitting"},
    left_behind: {"overfitting"}, noisy_plateau: {"plateau"}, plateau_in_steps: {"plateau"},
    unvalidated_plateau: {"plateau"}, language_model: FINE, dropout: FINE, noisy_but_fine: FINE,
    warm_start: FINE, log_likelihood: FINE, one_nan: {"unstable"}, late_data: {"starved"},
    bursts: FINE, short: {"too_short"},
}  # fmt: skip
