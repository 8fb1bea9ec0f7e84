"""The optimizer that a plan names: an explicit table, and arguments only where torch takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import optim

from autotrain import sparse
from autotrain.depth import depths
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

Own = Callable[[torch.Tensor], torch.Tensor]
# Of a group: what it takes of the learning rate.
SHARE = "rate_share"


def build(
    section: OptimizerSection, model: torch.nn.Module, own: Own = lambda parameter: parameter
) -> optim.Optimizer:
    """The optimizer over the parameters that want a gradient, in groups as the plan says.

    `own`: what of a parameter is in this process.
    Raises AutotrainError where there are none, or where torch refuses the settings, as it does
    most for sparse gradients.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise AutotrainError(
            "the model has no parameter to train", "set requires_grad on what should learn"
        )
    sparse.insist(section, model)
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
        groups = _groups(section, trainable, model)
        for group in groups:
            group["params"] = [own(parameter) for parameter in group["params"]]
        built: optim.Optimizer = made(groups, lr=section.lr, **arguments)
        return built
    except (TypeError, ValueError, RuntimeError) as error:
        raise AutotrainError(
            f"torch's {made.__name__} refuses {_spelled(arguments)}: {error}",
            'change the optimizer section; implementation = "foreach" suits every optimizer',
        ) from None


def _groups(
    section: OptimizerSection, trainable: dict[str, torch.nn.Parameter], model: torch.nn.Module
) -> list[dict[str, Any]]:
    """The parameters by their depth, the deepest first, and those that decay before others.

    `plan/grouping.py` counts on this order. Of fewer than two dimensions are biases, gains of
    norms and the like: pulling them to zero regularises nothing.
    """
    fraction, spares = section.layer_decay, section.decays == "matrices" and section.weight_decay
    depth = depths(model) if fraction is not None else {}
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trainable.items():
        spared = bool(spares) and parameter.ndim < 2
        groups.setdefault((-depth.get(name, 0), spared), []).append(parameter)
    made: list[dict[str, Any]] = []
    for (level, spared), members in sorted(groups.items(), key=lambda each: each[0]):
        own: dict[str, Any] = {"weight_decay": 0.0} if spared else {}
        if fraction is not None:
            own[SHARE] = fraction**-level
        made.append({"params": members, **own})
    return made


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step; a group takes its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(SHARE, 1.0)


def grouped(optimizer: optim.Optimizer) -> Sequence[torch.Tensor]:
    """Its parameters in its own order, group by group."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _spelled(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())
