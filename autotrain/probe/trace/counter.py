"""Counts what a training step allocates and computes, while it runs on fake or real tensors.

A storage is counted when an operator first returns it and released when it dies, which is
what an allocator would see; rounding and fragmentation come later (`plan/memory.py`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from autotrain.probe.trace.rules import INSIDE, RULES, LstmLayer

_CONVOLUTIONS = ("aten.convolution.", "aten._convolution.")
_CONVOLUTION_BACKWARD = "aten.convolution_backward."


@dataclass
class Work:
    """What the operators of a stretch of code did: FLOPs, bytes in and out, how many."""

    matmul_flops: float = 0.0
    convolution_flops: float = 0.0
    moved_bytes: float = 0.0
    ops: int = 0


class _Storage(NamedTuple):
    number: int | None  # on the tape; a storage of no bytes is not there
    size: int


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """A dispatch mode that keeps the bytes of live storages, their peak, and the work done.

    `tape` tells how they were born and died; `schema.StepTrace` says how to read it.
    """

    def __init__(self, *, fake: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = fake
        self.live: dict[int, _Storage] = {}
        self.tape: list[int] = []
        self.births = 0
        self.now = self.peak = 0
        self.work = Work()
        self.last_op = ""

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors that exist already: parameters, buffers, the batch."""
        for tensor in tensors:
            self._see(tensor)

    def restart(self) -> None:
        """Forget the peak and the work so far; what lives stays counted."""
        self.peak, self.work = self.now, Work()

    def off(self) -> None:
        """Stop listening: what dies from here on is not on the tape."""
        self.live.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator, then count its new storages and its work."""
        self.last_op = str(func)
        rule = RULES.get(self.last_op) if self.fake else None
        out = rule(func, args, kwargs or {}) if rule else func(*args, **(kwargs or {}))
        outputs = _tensors(out)
        for tensor in outputs:
            self._see(tensor)
        if self.last_op in INSIDE:
            self._inside(INSIDE[self.last_op](args))
        self._account(func, args, kwargs or {}, out, outputs)
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        size = storage.nbytes()
        weakref.finalize(storage, self._release, key)
        self.live[key] = _Storage(self.births if size else None, size)
        if size:
            self._born(size)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _release(self, key: int) -> None:
        gone = self.live.pop(key, None)
        if gone is not None and gone.number is not None:
            self.now -= gone.size
            self.tape.append(-1 - gone.number)

    def _born(self, size: int) -> None:
        self.tape.append(size)
        self.births += 1

    def _inside(self, size: int) -> None:
        """Bytes that an operator uses beside its outputs, until it returns."""
        if size:
            self._born(size)
            self.tape.append(-self.births)
            self.peak = max(self.peak, self.now + size)

    def _account(
        self, func: Any, args: Any, kwargs: dict[str, Any], out: Any, outputs: list[torch.Tensor]
    ) -> None:
        if not outputs and not func._schema.is_mutable:
            return
        if getattr(func, "is_view", False):
            return
        inputs = _tensors((args, kwargs))
        self.work.ops += 1
        self.work.moved_bytes += sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        flops = _flops(func, args, kwargs, out)
        if self.last_op.startswith((*_CONVOLUTIONS, _CONVOLUTION_BACKWARD)):
            self.work.convolution_flops += flops
        else:
            self.work.matmul_flops += flops


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _flops(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> float:
    """Floating-point operations of one operator; 0 for what only moves bytes."""
    name = str(func)
    if name.startswith("aten.mkldnn_rnn_layer"):
        return LstmLayer.of(args).flops() * (2 if "backward" in name else 1)
    if name.startswith("aten._scaled_dot_product_flash_attention_for_cpu"):
        backward = "backward" in name
        query, key = args[1:3] if backward else args[0:2]
        return 2.0 * float(query.numel() * key.shape[2]) * (5 if backward else 2)
    if name.startswith(_CONVOLUTIONS):
        return _convolution_flops(args[0] if args[6] else out, args[1])
    if name.startswith(_CONVOLUTION_BACKWARD):
        # One product for each gradient asked for: of the input and of the weight.
        one = _convolution_flops(args[1] if args[7] else args[0], args[2])
        return one * (bool(args[-1][0]) + bool(args[-1][1]))
    count = flop_registry.get(func._overloadpacket)
    return float(count(*args, **kwargs, out_val=out)) if count is not None else 0.0


def _convolution_flops(each: torch.Tensor, weight: torch.Tensor) -> float:
    """2 x elements x the weights each one takes; `each` is the output (transposed: the input).

    Groups are counted as they are: torch's own counter takes a depthwise weight gradient
    for a dense one.
    """
    return 2.0 * each.numel() * weight[0].numel()
