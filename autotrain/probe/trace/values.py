"""Which tensors of a fake step keep their values, and how an operator runs on both kinds.

Integers and booleans stay real as long as they follow from the batch, from constants and from
one another: lengths, masks, indices, routing tables. So shapes that depend on them are exact.
Floats that are data are fake; what is computed from them is unknown, and where a shape depends
on it, `rules` bounds it. A real tensor that a fake one was written into is unknown from then on.
"""

from __future__ import annotations

import traceback
import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotrain.probe.trace.rules import INDEXED, RULES, numbered

MANY = 4 * 2**20  # elements: a larger tensor of integers or booleans is fake as well
MANY_FLOATS = 2**18  # elements: floats of a step that follow from known values, a mask of 512 words
FEW = 1024  # elements: floats while a model is built, whose weights would all be known
_SMALL_WORK = 4096  # elements read: the outputs cannot be so large that one must look first

Name = str
_FILLED: dict[Name, float | None] = {  # these take from a tensor its dtype and shape at most
    "aten.zeros_like.default": 0,
    "aten.ones_like.default": 1,
    "aten.full_like.default": None,
    "aten.new_zeros.default": 0,
    "aten.new_ones.default": 1,
    "aten.new_full.default": None,
    "aten.empty_like.default": 0,
    "aten.new_empty.default": 0,
}
_READS = ("aten._local_scalar_dense.default", "aten.equal.default")


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors among an operator's arguments or results: alone, or in lists and tuples."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, list | tuple):
        return [tensor for part in tree for tensor in tensors_in(part)]
    if isinstance(tree, dict):
        return [tensor for part in tree.values() for tensor in tensors_in(part)]
    return []


def small_enough(tensor: torch.Tensor, floats: int = MANY_FLOATS) -> bool:
    """Whether a tensor of this size may be real beside fake ones; of `floats`, so many."""
    inexact = tensor.is_floating_point() or tensor.is_complex()
    return tensor.numel() <= (floats if inexact else MANY)


class Values:
    """Runs operators: for real where all that they take is known, else on fake tensors.

    `answer` is what a number is taken for that the code reads out of an unknown tensor;
    `asked` counts how often that happened, `where` is the stack of the first time. `floats`: how
    many elements a known tensor of floats may have.
    """

    def __init__(self, mode: FakeTensorMode, answer: float = 1, floats: int = MANY_FLOATS) -> None:
        self.mode, self.answer, self.asked, self.floats = mode, answer, 0, floats
        self.where: traceback.StackSummary | None = None
        self._unknown: set[int] = set()  # storages of real tensors
        self._stand_ins: dict[Any, torch.Tensor] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the batch as the step is to see it: as it is, or fake."""
        exact = not tensor.is_floating_point() and self._small(tensor)
        return tensor if exact else self.mode.from_tensor(tensor)

    def _small(self, tensor: torch.Tensor) -> bool:
        return small_enough(tensor, self.floats)

    def forget(self, tensor: torch.Tensor) -> None:
        """Take what is in a real tensor for unknown from now on."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._unknown:
            self._unknown.add(key)
            weakref.finalize(storage, self._unknown.discard, key)

    def known(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor's values are real ones."""
        if isinstance(tensor, FakeTensor) or tensor.layout != torch.strided:
            return False
        if not self._small(tensor):
            return False
        return not self._unknown or tensor.untyped_storage()._cdata not in self._unknown

    def run(
        self,
        name: str,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        inputs: list[torch.Tensor],
    ) -> Any:
        """The outputs of one operator; `inputs` are the tensors among its arguments."""
        real = [tensor for tensor in inputs if not isinstance(tensor, FakeTensor)]
        if inputs and not real:
            out = self._fake(name, func, args, kwargs, real=False)
            return self._filled(name, out, args) if name in _FILLED else out
        if func.is_view and len(real) == len(inputs):
            return _for_real(func, args, kwargs)
        if len(real) < len(inputs) or not all(self.known(tensor) for tensor in real):
            return self._mixed(name, func, args, kwargs)
        return self._known(func, args, kwargs, inputs)

    def _known(self, func: Any, args: Any, kwargs: dict[str, Any], inputs: Any) -> Any:
        """All that the operator takes is known: so is what it makes, unless that is too much."""
        if not func._schema.is_mutable:
            wide = any(isinstance(each, list | tuple) for each in (*args, *kwargs.values()))
            if not inputs or wide or sum(t.numel() for t in inputs) > _SMALL_WORK:
                try:
                    out = func(*self._faked(args), **self._faked(kwargs))
                except Exception:  # its shape depends on values, which we have
                    return _for_real(func, args, kwargs)
                if not all(map(self._small, tensors_in(out))):
                    return out
        out = _for_real(func, args, kwargs)
        if not all(map(self._small, tensors_in(out))):
            return self._faked(out)
        return out

    def _mixed(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Real tensors among fake ones: fake ones stand in for them; what is written is unknown."""
        out = self._fake(name, func, args, kwargs, real=True)
        return self._written(func, args, kwargs, out) if func._schema.is_mutable else out

    def _fake(self, name: str, func: Any, args: Any, kwargs: dict[str, Any], *, real: bool) -> Any:
        if name in INDEXED:
            args, real = numbered(args, self.known), True
        rule = RULES.get(name)
        if rule:
            return rule(func, args, kwargs)
        if name in _READS:
            self.asked += 1
            self.where = self.where or traceback.extract_stack()
            dtype = args[0].dtype if name == _READS[0] else torch.bool
            return _number(dtype, self.answer)
        if real:
            args, kwargs = self._faked(args), self._faked(kwargs)
        return func(*args, **kwargs)

    def _filled(self, name: str, out: torch.Tensor, args: Any) -> torch.Tensor:
        if out.is_floating_point() or out.is_complex() or not self._small(out):
            return out
        value = _FILLED[name]
        given = args[-1] if value is None else value
        with torch._C._DisableTorchDispatch():
            return torch.full(out.shape, given, dtype=out.dtype)

    def _written(self, func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        """`out` with the real tensors that the operator wrote to, which are unknown now."""
        written: dict[str, Any] = {}
        for place, argument in enumerate(func._schema.arguments):
            alias = argument.alias_info
            if alias is None or not alias.is_write:
                continue
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            for tensor in tensors_in(given):
                if not isinstance(tensor, FakeTensor):
                    self.forget(tensor)
            written.update(dict.fromkeys(alias.after_set, given))
        returns = func._schema.returns
        outs = list(out) if len(returns) > 1 else [out]
        for place, returned in enumerate(returns):
            alias = returned.alias_info
            if alias is not None and alias.is_write:
                outs[place] = next((written[a] for a in alias.after_set if a in written), out)
        return tuple(outs) if len(returns) > 1 else outs[0] if returns else None

    def _faked(self, tree: Any) -> Any:
        """The same arguments, a fake tensor standing in for each real one."""
        if isinstance(tree, torch.Tensor):
            return tree if isinstance(tree, FakeTensor) else self._stand_in(tree)
        if isinstance(tree, list | tuple):
            return type(tree)(self._faked(part) for part in tree)
        if isinstance(tree, dict):
            return {key: self._faked(part) for key, part in tree.items()}
        return tree

    def _stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout != torch.strided:
            return self.mode.from_tensor(tensor)
        key = tensor.shape, tensor.stride(), tensor.dtype
        if key not in self._stand_ins:
            self._stand_ins[key] = torch.empty_strided(key[0], key[1], dtype=key[2])
        return self._stand_ins[key]


def _for_real(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C._DisableTorchDispatch():
        return func(*args, **kwargs)


def _number(dtype: torch.dtype, answer: float) -> bool | int | float:
    if dtype == torch.bool:
        return bool(answer)
    return float(answer) if dtype.is_floating_point else int(answer)
