"""Gradients that torch computes otherwise while somebody watches.

The gradient of `gather`, `max` over a dimension, `index_select` or `x[index]` is written into
zeros. Where a dispatch mode is on, ATen takes a copy of them instead (`areAnyTensorSubclassLike`,
in FunctionsManual.cpp and TensorAdvancedIndexing.cpp): twice the memory, and twice the work.
"""

from __future__ import annotations

from typing import Any

import torch

_aten = torch.ops.aten
# By the operator that copies: the one that a run calls in its place.
_IN_PLACE = {
    _aten.scatter.src: _aten.scatter_.src,
    _aten.scatter.value: _aten.scatter_.value,
    _aten.scatter_add.default: _aten.scatter_add_.default,
    _aten.index_add.default: _aten.index_add_.default,
    _aten.index_fill.int_Scalar: _aten.index_fill_.int_Scalar,
    _aten.index_put.default: _aten.index_put_.default,
    _aten.put.default: _aten.put_.default,
}
_ZEROS = (_aten.new_zeros.default, _aten.zeros.default, _aten.zeros_like.default)


def in_a_backward() -> bool:
    """Whether autograd's engine calls now: a formula of its own, or code that it computes again."""
    return bool(torch._C._current_graph_task_id() != -1)


class Formulas:
    """Follows the zeros that formulas make, to tell what is written into them."""

    def __init__(self) -> None:
        self._zeros: int | None = None  # the storage of the last

    def as_run(self, func: Any, args: Any) -> Any:
        """The operator that a run would call here."""
        here = _IN_PLACE.get(func)
        if here is None or torch.is_grad_enabled() or not in_a_backward():
            return func
        return here if args[0].untyped_storage()._cdata == self._zeros else func

    def made(self, func: Any, outputs: list[torch.Tensor]) -> None:
        """Note what an operator returned."""
        if func in _ZEROS and outputs[0].layout == torch.strided:
            self._zeros = outputs[0].untyped_storage()._cdata
