"""Freezing: parameters that training leaves as they are, chosen by patterns over their names.

A run, a trial and a trace all do it here, so that what was predicted is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from autotrain.errors import AutotrainError
from autotrain.near import near_name

KEY = "train.freeze"
STATISTICS = ("running_mean", "running_var")
_SHOWN = 8


@dataclass(frozen=True)
class Frozen:
    """What `freeze` changed: parameters that wanted a gradient, and layers now kept still."""

    parameters: tuple[nn.Parameter, ...] = ()
    layers: tuple[nn.Module, ...] = ()

    def thaw(self) -> None:
        """The inverse of `freeze`."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for layer in self.layers:
            vars(layer).pop("train", None)


def freeze(model: nn.Module, patterns: Sequence[str] | None) -> Frozen:
    """Have the parameters whose names match a pattern want no gradient (`*` matches dots too).

    A normalisation layer that keeps running statistics stays in eval mode where all of its
    parameters are frozen, as in Keras: its statistics would go on to change what its frozen
    neighbours were trained for. Dropout stays as it is. Tied weights are frozen by either name.
    Raises AutotrainError for a pattern that matches nothing, and where nothing is left to train.
    """
    if not patterns:
        return Frozen()
    named = dict(model.named_parameters(remove_duplicate=False))
    statistics = {f"{at}.{own}" for at, m in _norms(model) for own in STATISTICS}
    _insist(patterns, [*named, *statistics])
    chosen = {id(p) for name, p in named.items() if _matches(name, patterns)}
    every = {id(p): p for p in named.values()}
    if all(number in chosen or not p.requires_grad for number, p in every.items()):
        raise AutotrainError(
            f"{KEY}: {', '.join(map(repr, patterns))}: nothing is left to train: all {len(every)} "
            "parameters of the model are frozen",
            "leave the last layers out: " + ", ".join([*named][-2:]),
        )
    frozen = tuple(p for number, p in every.items() if number in chosen and p.requires_grad)
    layers = tuple(m for name, m in _norms(model) if _stands_still(name, m, chosen, patterns))
    for parameter in frozen:
        parameter.requires_grad_(False)
    for layer in layers:
        layer.eval()
        # An attribute of its own: whoever calls train() on the model leaves this layer as it is.
        vars(layer)["train"] = MethodType(_stays, layer)
    return Frozen(frozen, layers)


def _stays(self: nn.Module, _mode: bool = True) -> nn.Module:
    return self


def moves(layer: nn.Module) -> bool:
    """Whether a layer of running statistics goes on to gather them in training."""
    return "train" not in vars(layer)


def _norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    ]


def _stands_still(name: str, layer: nn.Module, chosen: set[int], patterns: Sequence[str]) -> bool:
    """Whether all that a layer learns is frozen; one without parameters goes by its statistics."""
    own = [*layer.parameters(recurse=False)]
    if own:
        return all(id(p) in chosen for p in own)
    return all(_matches(f"{name}.{statistic}", patterns) for statistic in STATISTICS)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _insist(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Raise AutotrainError naming every pattern that matches nothing, and what it is near to."""
    modules = {name.rpartition(".")[0] for name in names} - {""}
    parents = {m.partition(".")[0] for m in modules}
    known = [*names, *(f"{module}.*" for module in sorted(modules | parents))]
    lost = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    if lost:
        said = "; ".join(f"{p!r} matches no parameter{near_name(p, known)}" for p in lost)
        shown = [f"{part}.*" if part in parents else part for part in _firsts(names)][:_SHOWN]
        raise AutotrainError(
            f"{KEY}: {said}", f"patterns over names such as {', '.join(shown)}; * matches any part"
        )


def _firsts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
