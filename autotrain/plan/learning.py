"""Learning rate, its schedule, how long to train and when to give up."""

from __future__ import annotations

import math

from autotrain.schema import OptimizerName

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
SCALING_SOURCES = {
    "linear": "Goyal 2017, arXiv:1706.02677",
    "square root": "Malladi 2022, arXiv:2205.10287",
}
# Which schedules read which key.
SCHEDULE_USERS: dict[str, tuple[str, ...]] = {
    "min_lr": ("cosine", "cosine_restarts", "plateau", "exponential", "inverse_sqrt"),
    "factor": ("plateau", "exponential"),
    "patience": ("plateau",),
    "period_steps": ("cosine_restarts", "exponential"),
}


def default_rate(optimizer: OptimizerName, parameters: int) -> float:
    """The learning rate where no recipe names one.

    Adam-like: 1e-3 up to 45 M parameters (Kingma and Ba 2015), falling with the square root
    of the size above, 6e-4 at 125 M (Brown 2020, table 2.1). SGD: 0.1 at a batch of 256
    (Goyal 2017). Others: torch.optim's defaults.
    """
    if optimizer in DEFAULT_RATES:
        return DEFAULT_RATES[optimizer]
    return float(f"{min(1e-3, 6e-4 * math.sqrt(125e6 / max(parameters, 1))):.2g}")


def scaled_rate(rate: float, optimizer: OptimizerName, recipe_batch: int, batch: int) -> float:
    """A recipe's learning rate at another global batch.

    SGD: linear (Goyal 2017, arXiv:1706.02677). Adam-like and adaptive ones: square root
    (Malladi 2022, arXiv:2205.10287). Unchanged where the batches are equal.
    """
    ratio = batch / recipe_batch
    return rate * (ratio if optimizer == "sgd" else math.sqrt(ratio))


def default_epochs(steps_per_epoch: int) -> int:
    """Enough for about 3,000 optimizer steps, from 10 to 100 epochs."""
    return min(max(math.ceil(3000 / steps_per_epoch), 10), 100)


def warmup_steps(total_steps: int) -> int:
    """A twentieth of the run, at most 2,000 steps (Goyal 2017: 5 of 90 epochs)."""
    return min(total_steps // 20, 2000)


def default_patience(epochs: int) -> int:
    """Evaluations without progress before stopping: a fifth of the epochs, at least 5."""
    return max(math.ceil(epochs / 5), 5)
