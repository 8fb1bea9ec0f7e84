"""How far each parameter lies from the output: for rates that fall with it.

A model does not say in which order it computes; it says in which order it was written. That is
taken: what stands before the first repeated block is the bottom, each block is a level, and
what stands after the last one is the top. As in ELECTRA, BEiT and timm.
"""

from __future__ import annotations

from itertools import groupby

from torch import nn

from autotrain.repeats import blocks


def depths(model: nn.Module) -> dict[str, int]:
    """Levels between each parameter, by its name, and the top; 0 for the top itself.

    Where no blocks repeat, layers are levels: parameters whose names share their first two parts.
    A norm or a bias alone makes no level: it goes with the layer before it. Tied weights are
    where they come first.
    """
    levels = _by_blocks(model) or _by_names(model)
    top = max(levels.values(), default=0)
    return {name: top - level for name, level in levels.items()}


def _by_blocks(model: nn.Module) -> dict[str, int]:
    """Levels from the bottom, by repeated blocks; nothing where there are none, but stretches."""
    found = blocks(model)
    if not found or any(block.stop is not None for block in found):
        return {}
    member = {id(p): n for n, block in enumerate(found) for p in block.module.parameters()}
    levels: dict[str, int] = {}
    seen: dict[int, int] = {}
    for name, parameter in model.named_parameters():
        block = member.get(id(parameter))
        if block is not None:
            levels[name] = seen.setdefault(block, len(seen) + 1)
        else:  # before the first: the bottom; else it goes with the block that comes next
            levels[name] = len(seen) + 1 if seen else 0
    return levels


def _by_names(model: nn.Module) -> dict[str, int]:
    """Levels from the bottom, by the first two parts of the names of layers."""
    levels: dict[str, int] = {}
    level = -1
    for _, members in groupby(model.named_parameters(), lambda each: _layer(each[0])):
        own = list(members)
        if level < 0 or any(parameter.ndim > 1 for _, parameter in own):
            level += 1
        levels |= {name: level for name, _ in own}
    return levels


def _layer(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")[:-1][:2])
