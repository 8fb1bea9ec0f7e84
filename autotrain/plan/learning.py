"""Learning rates and what goes with them at another batch, warm-up, how long to train."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from autotrain.plan.batch import default_global_batch
from autotrain.schema import OptimizerName

Law = Literal["linear", "square root", "none"]

# torch.optim's own defaults where no better source is known.
DEFAULT_RATES: dict[OptimizerName, float] = {
    "sgd": 0.1,
    "rmsprop": 1e-3,
    "adagrad": 1e-2,
    "adadelta": 1.0,
    "adamax": 2e-3,
    "rprop": 1e-2,
}
SGD_REFERENCE_BATCH = 256
ADAM_LIKE: frozenset[OptimizerName] = frozenset({"adamw", "adam", "nadam", "radam", "adamax"})
_ADAM = "Kingma and Ba 2015, arXiv:1412.6980; Brown 2020, arXiv:2005.14165, for large models"
RATE_SOURCES: dict[OptimizerName, str] = {
    "sgd": "Goyal 2017, arXiv:1706.02677",
    **{name: _ADAM for name in ADAM_LIKE if name not in DEFAULT_RATES},
}
LAWS: dict[OptimizerName, Law] = {
    "sgd": "linear",
    "adagrad": "none",
    "rprop": "none",
}
LAW_SOURCES: dict[Law, str] = {
    "linear": "Goyal 2017, arXiv:1706.02677",
    "square root": "Malladi 2022, arXiv:2205.10287",
    "none": "Duchi 2011, jmlr.org/papers/v12/duchi11a; Riedmiller and Braun 1993, for Rprop",
}
UNSCALED: dict[OptimizerName, str] = {
    "adagrad": "it divides by the sum of all past gradients, which has fewer terms at a larger one",
    "rprop": "it is a first guess that rprop corrects",
}
BETAS = (0.9, 0.999)
# Scaled betas stay within: the least and the most that are in wide use.
BETA_RANGE = ((0.5, 0.99), (0.9, 0.9999))
BETA_SOURCES = "Radford 2016, arXiv:1511.06434, and Gulrajani 2017, arXiv:1704.00028, for the least"
# torch.optim's defaults: what is added to the size of past gradients before dividing by it.
EPS: dict[OptimizerName, float] = {
    "rmsprop": 1e-8,
    "adagrad": 1e-10,
    "adadelta": 1e-6,
    **dict.fromkeys(ADAM_LIKE, 1e-8),
}
SCALES_EPS = ADAM_LIKE | {"rmsprop"}
DECAYS: dict[OptimizerName, float] = {"adamw": 0.01, "sgd": 1e-4}
# Which schedules read which key.
SCHEDULE_USERS: dict[str, tuple[str, ...]] = {
    "min_lr": ("cosine", "cosine_restarts", "plateau", "exponential", "inverse_sqrt"),
    "factor": ("plateau", "exponential"),
    "patience": ("plateau",),
    "period_steps": ("cosine_restarts", "exponential"),
}

TWENTIETH, MOST_TWENTIETH = 20, 2000
MOST_WARMUP_SHARE = 10
SGD_WARMUP_EPOCHS = 5
# torch's RMSprop: `alpha` is 0.99, and its running mean starts at zero without correction.
RMSPROP_ALPHA = 0.99


class Warmup(NamedTuple):
    """Steps to warm up over, the rule in words with its numbers, and its source."""

    steps: int
    formula: str
    source: str


def default_rate(optimizer: OptimizerName, parameters: int) -> float:
    """The learning rate where no recipe names one.

    Adam-like: 1e-3 up to 45 M parameters (Kingma and Ba 2015), falling with the square root
    of the size above, 6e-4 at 125 M (Brown 2020, table 2.1). SGD: 0.1 at a batch of 256
    (Goyal 2017). Others: torch.optim's defaults.
    """
    if optimizer in DEFAULT_RATES:
        return DEFAULT_RATES[optimizer]
    return float(f"{min(1e-3, 6e-4 * math.sqrt(125e6 / max(parameters, 1))):.2g}")


def reference_batch(optimizer: OptimizerName, samples: int) -> int:
    """The global batch at which `default_rate` is taken to be right, for so many samples.

    SGD's is published with it (Goyal 2017). The others' are in use at all of the usual batches:
    at the one that a plan chooses by itself, so that another one's rate follows its law.
    """
    return SGD_REFERENCE_BATCH if optimizer == "sgd" else default_global_batch(samples)


def law(optimizer: OptimizerName) -> Law:
    """How the learning rate follows the global batch."""
    return LAWS.get(optimizer, "square root")


def scaled_rate(rate: float, optimizer: OptimizerName, recipe_batch: int, batch: int) -> float:
    """A recipe's learning rate at another global batch.

    SGD: linear (Goyal 2017, arXiv:1706.02677). Those that divide by the size of past
    gradients: square root (Malladi 2022, arXiv:2205.10287). Adagrad: unchanged, as it divides
    by a sum that has fewer terms at a larger batch. Rprop: unchanged, its rate is a first guess.
    """
    times = batch / recipe_batch
    return rate * {"linear": times, "square root": math.sqrt(times), "none": 1.0}[law(optimizer)]


def scaled_betas(betas: tuple[float, float], times: float) -> tuple[float, float]:
    """Adam's betas at a global batch `times` as large: 1 - beta grows with it.

    So every sample is remembered as long, counted in samples, as before (Malladi 2022). They
    stay within BETA_RANGE, or where they are if that is outside: 1 - times x (1 - beta) falls
    below 0 at a large batch. Scaling back gives the same betas unless a limit held one.
    """
    first, second = (
        beta if times == 1 else _held(1 - times * (1 - beta), beta, limits)
        for beta, limits in zip(betas, BETA_RANGE, strict=True)
    )
    return first, second


def _held(scaled: float, given: float, limits: tuple[float, float]) -> float:
    low, high = min(limits[0], given), max(limits[1], given)
    return min(max(round(scaled, 12), low), high)


def scaled_eps(eps: float, optimizer: OptimizerName, times: float) -> float:
    """eps at a global batch `times` as large, whose gradients have 1 / sqrt(times) of the noise.

    Of Adam-like ones and RMSprop (Malladi 2022); the others' is a part of their step size.
    """
    return eps / math.sqrt(times) if optimizer in SCALES_EPS else eps


def scaled_decay(decay: float, optimizer: OptimizerName, times: float) -> float:
    """Weight decay at a global batch `times` as large, with the learning rate scaled too.

    AdamW takes lr x weight_decay of each weight a step. Kept an epoch: lr grows by sqrt(times),
    steps fall by times, so weight_decay grows by sqrt(times) (Wang and Aitchison 2024,
    arXiv:2405.13698). The others add weight_decay x weight to the gradient: a part of the loss,
    which has nothing to do with the batch.
    """
    return decay * math.sqrt(times) if optimizer == "adamw" else decay


def default_epochs(steps_per_epoch: int) -> int:
    """Enough for about 3,000 optimizer steps, from 10 to 100 epochs."""
    return min(max(math.ceil(3000 / steps_per_epoch), 10), 100)


def warmup(
    total_steps: int,
    optimizer: OptimizerName,
    steps_per_epoch: int,
    beta2: float | None = None,
    times: float = 1.0,
) -> Warmup:
    """A twentieth of the run, or what the optimizer needs if that is more; a tenth at most.

    Adam-like: 2 / (1 - beta2) steps (Ma and Yarats 2019, arXiv:1910.04209), RAdam excepted, which
    rectifies its first steps itself. RMSprop: the same of its alpha. SGD at a batch `times` as
    large as its rate was found at: 5 epochs (Goyal 2017, arXiv:1706.02677). Rprop: none, torch's
    reads its rate once, at the first step.
    """
    if optimizer == "rprop":
        return Warmup(0, "rprop reads its learning rate once, at the first step", "torch.optim")
    most, twentieth = total_steps // MOST_WARMUP_SHARE, total_steps // TWENTIETH
    usual = min(twentieth, MOST_TWENTIETH)
    need, why, source = _needed(optimizer, steps_per_epoch, beta2, times)
    said = f"a twentieth of {total_steps} steps, at most {MOST_TWENTIETH}"
    if need <= usual:
        return Warmup(usual, said, "autotrain's rule, after Goyal 2017 (5 of 90 epochs)")
    said = f"{need} steps: {why}"
    if need > most:
        said += f"; a tenth of the run's {total_steps} steps at most: {most}"
    return Warmup(min(need, most), said, source)


def _needed(
    optimizer: OptimizerName, steps_per_epoch: int, beta2: float | None, times: float
) -> tuple[int, str, str]:
    """(steps, why, source) of what the optimizer itself asks for; 0 steps: nothing."""
    if optimizer == "sgd" and times > 1:
        why = f"{SGD_WARMUP_EPOCHS} epochs, as the batch is {times:.3g} x that of the usual rate"
        return SGD_WARMUP_EPOCHS * steps_per_epoch, why, "Goyal 2017, arXiv:1706.02677"
    if optimizer == "rmsprop":
        beta2 = RMSPROP_ALPHA
    elif optimizer == "radam" or optimizer not in ADAM_LIKE:
        beta2 = None
    if beta2 is None:
        return 0, "", ""
    why = f"2 / (1 - {beta2:.6g}), until the optimizer knows how large gradients usually are"
    return round(2 / (1 - beta2)), why, "Ma and Yarats 2019, arXiv:1910.04209"
