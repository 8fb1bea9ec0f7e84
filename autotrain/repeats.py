"""The repeated blocks of a model, found by its structure: what can be computed again.

Which modules belong together nobody says, but how models are written tells: layers stand in
lists, and what is repeated is one unit of thought.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

# A block has at least so many weights (matrices, kernels): of one alone, little is inside.
_LEAST_WEIGHTS = 2
# A plain sequence of at least so many layers with weights is cut into stretches.
_LEAST_LAYERS = 4


class Block(NamedTuple):
    """A part of a model that can be computed again: a module, or a stretch of an nn.Sequential."""

    name: str
    module: nn.Module
    start: int = 0
    stop: int | None = None

    def modules(self) -> list[nn.Module]:
        """The modules that it consists of."""
        if self.stop is None:
            return [self.module]
        return list(self.module.children())[self.start : self.stop]


class _Found(NamedTuple):
    block: Block
    in_list: bool  # one of a list of layers, or of three and more of a kind


def blocks(model: nn.Module) -> tuple[Block, ...]:
    """The repeated blocks of a model, in order, none inside another; often none.

    Blocks are modules with several weights that stand in a list (nn.ModuleList, nn.Sequential,
    nn.ModuleDict; lists in lists count as one), or are several of a class under one parent. Of
    blocks in blocks, the inner ones where they make up most of the outer. Without any, the
    longest plain nn.Sequential is cut into about as many stretches as each has layers.
    """
    found = {id(each.block.module): each.block for each in _inside(model, "")}
    return tuple(found.values()) or _stretches(model)


def apart(model: nn.Module, found: Sequence[Block]) -> list[Block]:
    """Those of the blocks whose parameters are no one else's."""
    alone = []
    for block in found:
        inside = {id(module) for own in block.modules() for module in own.modules()}
        parts: dict[bool, set[int]] = {True: set(), False: set()}
        for module in model.modules():
            parts[id(module) in inside] |= {id(p) for p in module.parameters(recurse=False)}
        if parts[True] and not parts[True] & parts[False]:
            alone.append(block)
    return alone


def _inside(module: nn.Module, name: str) -> list[_Found]:
    members = list(_members(module, name))
    units = [(child, listed) for _, child, listed in members if _is_unit(child)]
    listed_units = sum(listed for _, listed in units)
    kinds = Counter(type(child) for child, _ in units)
    found: list[_Found] = []
    for path, child, listed in members:
        inner, alike = _inside(child, path), kinds[type(child)]
        repeated = alike > 1 or (listed and listed_units > 1)
        if _is_unit(child) and repeated and not _make_up(inner, child):
            found.append(_Found(Block(path, child), listed or alike > 2))
        else:
            found += inner
    return found


def _members(
    module: nn.Module, name: str, *, in_list: bool = False
) -> Iterator[tuple[str, nn.Module, bool]]:
    """The module's children, lists of modules opened."""
    in_list = in_list or _is_list(module)
    for own, child in module.named_children():
        path = f"{name}.{own}" if name else own
        if _is_list(child):
            yield from _members(child, path, in_list=True)
        else:
            yield path, child, in_list


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.ModuleDict) or _is_sequence(module)


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _is_unit(module: nn.Module) -> bool:
    """Whether a block may be made of it.

    Not of a cell, which is called for every frame, nor of what keeps its own random state, as
    cuDNN's dropout between layers does.
    """
    if isinstance(module, nn.RNNCellBase) or _weights(module) < _LEAST_WEIGHTS:
        return False
    own = (m for m in module.modules() if isinstance(m, nn.RNNBase))
    return not any(m.dropout and m.num_layers > 1 for m in own)


def _weights(*modules: nn.Module) -> int:
    return sum(
        sum(size > 1 for size in parameter.shape) > 1  # no gains, biases or scales
        for module in modules
        for each in module.modules()
        if not isinstance(each, nn.Embedding | nn.EmbeddingBag)
        for parameter in each.parameters(recurse=False)
    )


def _make_up(inner: list[_Found], module: nn.Module) -> bool:
    """Whether the lists of layers found inside a module hold most of it."""
    held = _weights(*(each.block.module for each in inner if each.in_list))
    return 2 * held >= _weights(module)


def _stretches(model: nn.Module) -> tuple[Block, ...]:
    named = [(name, m) for name, m in model.named_modules() if _is_sequence(m)]
    long = [(_layers(m), name, m) for name, m in named]
    most = max(long, key=lambda each: len(each[0]), default=None)
    if most is None or len(most[0]) < _LEAST_LAYERS:
        return ()
    layers, name, module = most
    count = math.isqrt(len(layers))
    firsts = [layers[len(layers) * part // count] for part in range(count)]
    edges = itertools.pairwise((0, *firsts[1:], len(list(module.children()))))
    return tuple(Block(name, module, start, stop) for start, stop in edges)


def _layers(module: nn.Module) -> list[int]:
    """The places in a sequence of what has weights."""
    return [place for place, child in enumerate(module.children()) if _weights(child)]
