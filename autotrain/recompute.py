"""Activation checkpointing of any model: its blocks keep what they are given, no more.

What is computed inside a block is computed again in the backward pass (Chen 2016,
arXiv:1604.06174), by torch.utils.checkpoint, which gives the second pass the first one's random
numbers and casts. Beyond it, the second pass sees the block's buffers as the first one did and
leaves no trace in them (BatchNorm's statistics move once), and sees what the block was given
before the block wrote to it. Neither names of parameters nor a module's own forward change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointError, checkpoint

from autotrain.errors import AutotrainError
from autotrain.repeats import Block

# Buffers up to here are copied before each call, as it may change them in ways that nobody can
# see (BatchNorm's kernels do); larger ones only where the first call was seen to change them.
_SMALL_BYTES = 1 << 20
_STATE = "_autotrain_recompute"


@contextmanager
def unlike(path: Path | None = None) -> Iterator[None]:
    """Around a backward pass: a block that computes otherwise the second time gets its say.

    Raises AutotrainError. `path`: the task file to name.
    """
    try:
        yield
    except CheckpointError as error:
        raise AutotrainError(
            f"{path}: " * (path is not None)
            + "a block of the model, computed again in the backward pass, is not what it was",
            "it keeps something from call to call, such as a cache (use_cache=False where there is "
            "one); or leave model.activation_checkpointing out",
        ) from error


@dataclass
class _Seen:
    """What a block does to what is not its own, as its first call showed; None: not called yet.

    `written`: places among its arguments. `places`: buffers that may change.
    """

    block: Block
    written: frozenset[int] | None = None
    places: list[tuple[nn.Module, str]] = field(default_factory=list)


def install(found: Sequence[Block]) -> None:
    """From now on these blocks are computed again in each backward pass."""
    whose: dict[int, list[Block]] = {}
    made: dict[type, type] = {}
    for block in found:
        whose.setdefault(id(block.module), []).append(block)
    for own in whose.values():
        module = own[0].module
        if "forward" in vars(module):  # somebody put a forward of their own in its place
            continue
        vars(module)[_STATE] = [_Seen(block) for block in own]
        kind, in_stretches = type(module), own[0].stop is not None
        if kind not in made:  # one class for all blocks of one
            made[kind] = _recomputing(kind, in_stretches=in_stretches)
        module.__class__ = made[kind]


def remove(found: Sequence[Block]) -> None:
    """The inverse of `install`."""
    for module in {id(block.module): block.module for block in found}.values():
        if vars(module).pop(_STATE, None) is not None:
            module.__class__ = type(module).__mro__[1]


def _recomputing(kind: type[nn.Module], *, in_stretches: bool) -> type[nn.Module]:
    """The class, with a forward that computes again.

    A class and not an attribute: a copy of the module, or a replica, has itself for self.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        own = functools.partial(kind.forward, self)
        seen = vars(self).get(_STATE)  # a slice of a sequence has none
        if not seen or not torch.is_grad_enabled():
            return own(*args, **kwargs)
        if not in_stretches:
            return _again(own, [self], seen[0], args, kwargs)
        (data,) = args
        for each in seen:
            modules = list(self.children())[each.block.start : each.block.stop]
            data = _again(functools.partial(_in_turn, modules), modules, each, (data,), {})
        return data

    return type(kind.__name__, (kind,), {**named_like(kind), "forward": forward})


def named_like(kind: type) -> dict[str, Any]:
    """What has a class present itself as another."""
    return {"__module__": kind.__module__, "__qualname__": kind.__qualname__}


def _in_turn(modules: list[nn.Module], data: Any) -> Any:
    for module in modules:
        data = module(data)
    return data


def _again(
    forward: Callable[..., Any], modules: list[nn.Module], seen: _Seen, args: Any, kwargs: Any
) -> Any:
    """Call `forward`, and once more in the backward pass, for what that needs of the inside."""
    leaves, tree = pytree.tree_flatten((args, kwargs))
    first, written = seen.written is None, seen.written or frozenset()
    held = [_copy(leaf) if first or place in written else leaf for place, leaf in enumerate(leaves)]
    places = _places(modules) if first else seen.places
    buffers = _copies(places)
    before = [_version(leaf) for leaf in leaves], [_mark(*place) for place in places]
    todo = [(args, kwargs)]

    def run(*_devices: torch.Tensor) -> Any:
        if todo:
            own, named = todo.pop()
            return forward(*own, **named)
        changed = seen.written or frozenset()
        fresh = [each.clone() if n in changed else each for n, each in enumerate(held)]
        own, named = pytree.tree_unflatten(fresh, tree)
        with _as_before(places, buffers):
            return forward(*own, **named)

    out = checkpoint(run, *_devices(leaves), use_reentrant=False)
    if first:
        seen.written = frozenset(n for n, v in enumerate(before[0]) if _version(leaves[n]) != v)
        marks = zip(places, before[1], strict=True)
        seen.places = [p for p, mark in marks if _is_small(*p) or _mark(*p) != mark]
        held[:] = [held[n] if n in seen.written else leaf for n, leaf in enumerate(leaves)]
    return out


def _devices(leaves: list[Any]) -> list[torch.Tensor]:
    """A tensor of no elements on each device that takes part: its random numbers are kept."""
    found = {leaf.device: leaf for leaf in leaves if isinstance(leaf, torch.Tensor)}
    return [leaf.detach().new_empty(0) for leaf in found.values()]


def _copy(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.detach().clone().requires_grad_(leaf.requires_grad)


def _version(leaf: Any) -> int:
    return leaf._version if isinstance(leaf, torch.Tensor) else 0


def _places(modules: list[nn.Module]) -> list[tuple[nn.Module, str]]:
    own = {id(m): m for module in modules for m in module.modules()}
    return [(m, name) for m in own.values() for name, b in m._buffers.items() if b is not None]


def _mark(module: nn.Module, name: str) -> tuple[int, int]:
    buffer = module._buffers[name]
    return id(buffer), _version(buffer)


def _is_small(module: nn.Module, name: str) -> bool:
    buffer = module._buffers[name]
    return buffer is None or buffer.nbytes <= _SMALL_BYTES


@torch.no_grad()
def _copies(places: list[tuple[nn.Module, str]]) -> list[torch.Tensor | None]:
    """A copy of each of these buffers; one that stands in two places stays one."""
    known: dict[int, torch.Tensor] = {}
    made: list[torch.Tensor | None] = []
    for module, name in places:
        buffer = module._buffers[name]
        made.append(None if buffer is None else known.setdefault(id(buffer), buffer.clone()))
    return made


@contextmanager
def _as_before(
    places: list[tuple[nn.Module, str]], buffers: list[torch.Tensor | None]
) -> Iterator[None]:
    """While it lasts, those buffers stand in the modules; what is done to them is forgotten."""
    now = [module._buffers[name] for module, name in places]
    for (module, name), buffer in zip(places, buffers, strict=True):
        module._buffers[name] = buffer
    try:
        yield
    finally:
        for (module, name), buffer in zip(places, now, strict=True):
            module._buffers[name] = buffer
