"""The optimizer that a plan names: an explicit table, and arguments only where torch takes them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import optim

from autotrain.errors import AutotrainError
from autotrain.schema import OptimizerSection

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "adamw": optim.AdamW,
    "adam": optim.Adam,
    "sgd": optim.SGD,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "adamax": optim.Adamax,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "rprop": optim.Rprop,
}
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "for-loop": {"foreach": False},
}


def build(section: OptimizerSection, model: torch.nn.Module) -> optim.Optimizer:
    """The optimizer over the parameters that want a gradient.

    Raises AutotrainError where there are none, or where torch refuses the settings.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise AutotrainError(
            "the model has no parameter to train", "set requires_grad on what should learn"
        )
    made: Any = OPTIMIZERS[section.name]
    takes = inspect.signature(made).parameters
    offered = {
        "weight_decay": section.weight_decay,
        "momentum": section.momentum,
        "betas": section.betas,
        "eps": section.eps,
    }
    arguments: dict[str, Any] = {
        key: value for key, value in offered.items() if value is not None and key in takes
    }
    arguments |= IMPLEMENTATIONS[section.implementation]
    try:
        built: optim.Optimizer = made(trainable, lr=section.lr, **arguments)
        return built
    except (TypeError, ValueError, RuntimeError) as error:
        raise AutotrainError(
            f"torch's {made.__name__} refuses {_spelled(arguments)}: {error}",
            'change the optimizer section; implementation = "foreach" suits every optimizer',
        ) from None


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step, for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _spelled(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())
