"""Counts what a training step allocates and computes, while it runs on fake or real tensors.

A storage is counted when an operator first returns it and released when it dies, which is
what an allocator would see; rounding and fragmentation come later (`plan/memory.py`).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from autotrain import schema
from autotrain.probe.trace import scratch
from autotrain.probe.trace.flops import CONVOLUTION_BACKWARD, CONVOLUTIONS, flops_of
from autotrain.probe.trace.formulas import Formulas
from autotrain.probe.trace.manners import Manners
from autotrain.probe.trace.program import Recorder
from autotrain.probe.trace.rules import INSIDE, untouched
from autotrain.probe.trace.values import Values, tensors_in
from autotrain.probe.trace.work import VIEW, work

_DEVICE = torch.ops.prim.device.default


@dataclass
class Work:
    """What the operators of a stretch of code did: FLOPs, bytes in and out, how many.

    `untouched_bytes`: of what they made, what was never written to.
    """

    matmul_flops: float = 0.0
    convolution_flops: float = 0.0
    moved_bytes: float = 0.0
    untouched_bytes: float = 0.0
    ops: int = 0
    calls: dict[schema.Work, int] = field(default_factory=dict)

    def done(self) -> tuple[schema.Work, ...]:
        """Equal calls together."""
        return tuple(work._replace(calls=count) for work, count in self.calls.items())


class TooMuch(Exception):  # noqa: N818  # what it says is how much
    """More bytes are alive than the counter's limit."""


class _Storage(NamedTuple):
    number: int | None  # on the tape; a storage of no bytes is not there
    size: int


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """A dispatch mode that keeps the bytes of live storages, their peak, and the work done.

    `tape` tells how they were born and died; `schema.StepTrace` says how to read it.
    """

    def __init__(self, values: Values | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = values  # None: operators run for real
        self.strangers: list[weakref.ref[torch.Tensor]] = []
        self._theirs: set[int | None] = set()  # storages
        self.live: dict[int, _Storage] = {}
        self.tape: list[int] = []
        self.births = 0
        self.now = self.peak = 0
        self.work = Work()
        self._followed: set[int | None] | None = None  # storages
        self.limit: int | None = None  # bytes alive, above which `TooMuch` is raised
        self.last_op, self.under_way, self.validates = "", False, False
        self.formulas = Formulas()
        self.manners = Manners()
        self.inside = INSIDE  # by operator: bytes used beside its outputs
        self.calls: list[scratch.Call] | None = None  # None: nobody asks what is used inside
        self.recorder: Recorder | None = None  # None: nobody is going to play it again

    @property
    def last_words(self) -> str:
        """Where a step that failed had got to, for the beginning of a message."""
        during = "validating, without gradients: " if self.validates else ""
        return f"{during}in {self.last_op}: " if self.under_way else during

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Without gradients, as a run validates. What fails within is said to have failed there."""
        self.validates = True
        with torch.no_grad():
            yield
        self.validates = False

    def hold(self, tensors: Iterable[torch.Tensor], *, theirs: bool = False) -> None:
        """Count tensors that exist already: parameters, buffers, the batch.

        `theirs`: they are the user's own, and nothing may be written to them.
        """
        for tensor in tensors:
            self._see(tensor)
            if theirs:
                self._theirs.add(_storage_key(tensor))

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the batch as the step is to see it."""
        assert self.values is not None
        seen = self.values.keep(tensor)
        if self.recorder is not None:
            self.recorder.known(seen, tensor)
        return seen

    def restart(self) -> None:
        """Forget the peak and the work so far; what lives stays counted."""
        self.peak, self.work = self.now, Work()

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor was born or held while the counter listened."""
        return _storage_key(tensor) in self.live

    def follow(self, tensors: list[torch.Tensor] | None) -> None:
        """From now on, note what is computed from these tensors; None: no longer."""
        self._followed = None if tensors is None else {_storage_key(t) for t in tensors}

    def reached(self, tensors: list[torch.Tensor]) -> bool:
        """Whether any of these depends on what is followed, or may do so."""
        followed = self._followed
        return (
            followed is None
            or None in followed
            or any(_storage_key(tensor) in followed for tensor in tensors)
        )

    def _spread(self, func: Any, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        followed = self._followed
        if followed is None or not any(_storage_key(tensor) in followed for tensor in inputs):
            return
        written = inputs if func._schema.is_mutable else []
        followed.update(_storage_key(tensor) for tensor in (*outputs, *written))
        if not outputs and not written:  # a number was read: who knows what becomes of it
            followed.add(None)

    def again(self) -> Counter:
        """A counter that starts anew, with the same values."""
        made = Counter(self.values)
        made.calls = None if self.calls is None else []
        return made

    def off(self) -> None:
        """Stop listening: what dies from here on is not on the tape."""
        self.live.clear()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to skip it costs a call for every operator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator, then count its new storages and its work."""
        if func is _DEVICE:  # torch asks for it at every turn
            return args[0].fake_device if self.values else func(*args)
        kwargs = kwargs or {}
        func = self.formulas.as_run(func, args)
        self.last_op = name = _name(func)
        self.under_way = True
        inputs = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        self._meet(func, inputs)
        if self.values is None:
            out = func(*args, **kwargs)
        else:
            out = self.values.run(name, func, args, kwargs, inputs)
        outputs = tensors_in(out)
        self.formulas.made(func, outputs)
        self.manners.see(name, args)
        for tensor in outputs:
            self._see(tensor)
        if self._followed is not None:
            self._spread(func, inputs, outputs)
        if self.recorder is not None and (outputs or func._schema.is_mutable):
            self.recorder.call(func, args, kwargs, out)
        if name in self.inside:
            self._inside(self.inside[name](args))
        flops = self._account(func, args, kwargs, out, inputs, outputs)
        if self.calls is not None and scratch.may_use(func, name):
            known = scratch.call(
                func, args, kwargs, (*inputs, *outputs), len(self.tape), self.now, flops
            )
            if known is not None:
                self.calls.append(known)
        self.under_way = False
        return out

    def _meet(self, func: Any, inputs: list[torch.Tensor]) -> None:
        """Tensors that no operator made and nobody held: a teacher's, say. They are resident.

        One that is about to be written to is the user's own: it shall stay as it is.
        """
        for tensor in inputs:
            if tensor.numel() > 1 and _storage_key(tensor) not in self.live:
                self.strangers.append(weakref.ref(tensor))
                self.hold([tensor], theirs=True)
        if self._theirs and self.values is not None and func._schema.is_mutable:
            for tensor in inputs:
                if _storage_key(tensor) in self._theirs and not isinstance(tensor, FakeTensor):
                    self.values.forget(tensor)

    def _see(self, tensor: torch.Tensor) -> None:
        if tensor.layout != torch.strided:
            for part in _parts(tensor):
                self._see(part)
            return
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
            if self.limit is not None and self.now > self.limit:
                raise TooMuch(f"{self.limit / 2**30:.1f} GiB")

    def _release(self, key: int) -> None:
        gone = self.live.pop(key, None)
        if self.recorder is not None and gone is not None:
            self.recorder.freed(key)
        self._theirs.discard(key)
        if self._followed is not None:
            self._followed.discard(key)
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
        self,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        out: Any,
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
    ) -> float:
        if not outputs and not func._schema.is_mutable:
            return 0.0
        calls = self.work.calls
        if getattr(func, "is_view", False):
            calls[VIEW] = calls.get(VIEW, 0) + 1
            return 0.0
        self.work.ops += 1
        self.work.moved_bytes += sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        self.work.untouched_bytes += untouched(self.last_op, outputs)
        flops = flops_of(func, args, kwargs, out)
        if self.last_op.startswith((*CONVOLUTIONS, CONVOLUTION_BACKWARD)):
            self.work.convolution_flops += flops
        else:
            self.work.matmul_flops += flops
        made = work(func, args, flops, inputs, outputs)
        calls[made] = calls.get(made, 0) + 1
        return flops


@functools.cache
def _name(func: Any) -> str:
    return str(func)


def _storage_key(tensor: torch.Tensor) -> int | None:
    if tensor.layout != torch.strided:
        return None
    return int(tensor.untyped_storage()._cdata)


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The strided tensors that a sparse one is made of."""
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    return []
