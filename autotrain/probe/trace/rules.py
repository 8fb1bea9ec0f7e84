"""Operators that fake tensors get wrong or refuse, each with a rule of its own.

A rule is a function of the operator's arguments to its outputs, on fake tensors. Data
that a shape depends on is bounded by its upper size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from autotrain.probe.trace import recurrent, shortcuts

_CHOSEN = 4 * 2**20  # elements: larger tables of indices are fake


class LstmLayer(NamedTuple):
    """The shape of one oneDNN LSTM layer, in one direction."""

    steps: int
    batch: int
    width: int
    hidden: int
    dtype: torch.dtype

    @classmethod
    def of(cls, args: Any) -> LstmLayer:
        """From the arguments of `mkldnn_rnn_layer` or its backward."""
        steps, batch, width = args[0].shape
        return cls(steps, batch, width, args[1].shape[0] // 4, args[0].dtype)

    def flops(self) -> float:
        """Of the forward pass: four gates, each a product with input and state."""
        return 8.0 * self.steps * self.batch * self.hidden * (self.width + self.hidden)


def _lstm(run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """The layer's workspace, which the fake kernel leaves empty, at its real size."""
    out = run(*args, **kwargs)
    if not args[-1]:
        return out
    size = _lstm_workspace(LstmLayer.of(args))
    return (*out[:3], out[3].new_empty(size, dtype=torch.uint8))


def untouched(name: str, outputs: Sequence[torch.Tensor]) -> float:
    """Bytes that an operator allocates and never writes to: they are not resident.

    Of the LSTM's workspace (oneDNN 3.10, 128 to 512 hidden units): 0.60, 0.68, 0.65.
    """
    if name != "aten.mkldnn_rnn_layer.default" or len(outputs) < 4:  # no workspace to evaluate
        return 0.0
    return 0.64 * outputs[3].nbytes


def _lstm_backward(run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Gradients in fp32, whatever the layer's dtype; the fake kernel keeps bf16."""
    out = run(*args, **kwargs)
    return tuple(each.new_empty(each.shape, dtype=torch.float32) for each in out)


def _group_norm_backward(run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """The input's gradient has the input's dtype; the fake kernel makes it fp32."""
    out = run(*args, **kwargs)
    if out[0] is None:
        return out
    return (torch.empty_like(args[1]), *out[1:])


@functools.cache
def _lstm_workspace(layer: LstmLayer) -> int:
    """Bytes, from two real runs of the layer: the workspace is affine in the steps."""
    short, long = 16, 48
    if layer.steps <= long:
        return _run_lstm(layer)
    low, high = (_run_lstm(layer._replace(steps=steps)) for steps in (short, long))
    return high + (high - low) * (layer.steps - long) // (long - short)


def _run_lstm(layer: LstmLayer) -> int:
    gates = 4 * layer.hidden
    with _disable_current_modes():
        new = functools.partial(torch.zeros, dtype=layer.dtype)
        bias, state = new(gates), new(1, layer.batch, layer.hidden)
        out = torch.ops.aten.mkldnn_rnn_layer.default(
            new(layer.steps, layer.batch, layer.width), new(gates, layer.width),
            new(gates, layer.hidden), bias, bias, state, state,
            False, [], 2, layer.hidden, 1, True, False, False, True,
        )  # fmt: skip
    return int(out[3].nbytes)


def _ctc_loss(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    """Loss [batch] and log_alpha [batch, time, 2 x longest target + 1]."""
    log_probs, targets, lengths = args[0], args[1], args[3]
    time, batch = log_probs.shape[0], log_probs.shape[1]
    if not isinstance(lengths, FakeTensor):
        with torch._C._DisableTorchDispatch():
            longest = max([int(length) for length in lengths], default=0)
    else:
        longest = targets.shape[1] if targets.dim() == 2 else -(-targets.numel() // batch)
    new = functools.partial(torch.empty, dtype=log_probs.dtype)
    return new(batch), new(batch, time, 2 * longest + 1)


def _ctc_loss_backward(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    return torch.empty_like(args[1])


def _log_beta(args: Any) -> int:
    """The backward variables of CTC are as many as the forward ones, `log_alpha`."""
    return int(args[6].nbytes)


def _transducer(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    """RNN-T loss [batch] and the gradients of its logits."""
    logits = args[0]
    return torch.empty(logits.shape[0], dtype=logits.dtype), torch.empty_like(logits)


def _grouped_matmul(_run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Products of groups of rows, one matrix each; torch's fake kernel insists on bfloat16."""
    left, right = args[0], args[1]
    groups: Any = args[2] if len(args) > 2 else kwargs.get("offs")
    rows, columns = left.shape[-2], right.shape[-1]
    batched = left.dim() == right.dim()
    lead = () if not batched else (len(groups) if left.dim() == 2 else left.shape[0],)
    return torch.empty(*lead, rows, columns, dtype=kwargs.get("out_dtype") or left.dtype)


# --- packed sequences: the lengths are known -------------------------------------------------


def _pack(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    """Rows [sum of lengths, ...] and how many sequences each step has, which stays real."""
    data, lengths, _batch_first = args
    with torch._C._DisableTorchDispatch():
        steps = torch.arange(int(lengths[0]))
        sizes = (lengths[None, :] > steps[:, None]).sum(1)
        rows = int(sizes.sum())
    return torch.empty(rows, *data.shape[2:], dtype=data.dtype), sizes


# --- shapes that depend on unknown values: their upper size ----------------------------------


def _nonzero(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    """Every element counts: their places, which are then known."""
    return _places(args[0].shape)


def _places(shape: tuple[int, ...]) -> torch.Tensor:
    size = math.prod(shape), len(shape)
    if math.prod(size) > _CHOSEN:
        return torch.empty(size, dtype=torch.int64)
    with torch._C._DisableTorchDispatch():
        return torch.ones(shape, dtype=torch.bool).nonzero()


def _masked_select(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    shape = torch.broadcast_shapes(args[0].shape, args[1].shape)  # type: ignore[no-untyped-call]
    return torch.empty(math.prod(shape), dtype=args[0].dtype)


def _unique(run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Every element differs from every other: values, inverse, counts."""
    if len(args) > 3 or "dim" in kwargs:
        return run(*args, **kwargs)
    size = args[0].numel()
    whole = functools.partial(torch.empty, dtype=torch.int64)
    return torch.empty(size, dtype=args[0].dtype), whole(args[0].shape), whole(size)


def numbered(args: Any, known: Callable[[torch.Tensor], bool]) -> Any:
    """An indexing operator's arguments with index numbers for boolean masks.

    A known mask has exactly so many; an unknown one as many as it has elements.
    """
    indices: list[torch.Tensor | None] = []
    for each in args[1]:
        if each is None or each.dtype not in (torch.bool, torch.uint8):
            indices.append(each)
        elif known(each):
            with torch._C._DisableTorchDispatch():
                indices.extend(each.nonzero().unbind(1))
        else:
            places = _places(each.shape)
            with (
                torch._C._DisableTorchDispatch() if type(places) is torch.Tensor else nullcontext()
            ):
                indices.extend(places.unbind(1))
    return (args[0], indices, *args[2:])


INDEXED = (
    "aten.index.Tensor",
    "aten.index_put.default",
    "aten.index_put_.default",
    "aten._index_put_impl_.default",
    "aten._unsafe_index.Tensor",
)


_SIZED_BY_VALUES = {
    "aten.nonzero.default", "aten.masked_select.default", "aten._unique2.default",
    "aten.unique_consecutive.default", "aten.unique_dim.default", "torchvision.nms.default",
}  # fmt: skip


def sized_by_values(name: str, args: Any) -> bool:
    """Whether the shape of what an operator makes follows from values, known or not."""
    if name != "aten.index.Tensor":
        return name in _SIZED_BY_VALUES
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])


# --- choices by unknown values: taken for balanced -------------------------------------------


def _topk(run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Row i chooses k of n in turn, so that all are chosen equally often (experts, codes)."""
    values, indices = run(*args, **kwargs)
    dim = args[2] if len(args) > 2 else -1
    return values, _in_turn(indices, args[0].shape[dim] if args[0].dim() else 1, dim)


def _argmax(run: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    out = run(*args, **kwargs)
    dim = args[1] if len(args) > 1 else None
    return _in_turn(out, args[0].numel() if dim is None else args[0].shape[dim], None)


def _in_turn(indices: torch.Tensor, choices: int, dim: int | None) -> torch.Tensor:
    """Real indices of this shape, counting up along `dim` first and starting anew at `choices`."""
    if indices.numel() > _CHOSEN:
        return indices
    with torch._C._DisableTorchDispatch():
        flat = torch.arange(indices.numel()) % choices
        if dim is None or not indices.dim():
            return flat.view(indices.shape)
        moved = torch.empty(indices.shape, device="meta").movedim(dim, -1).shape
        return flat.view(moved).movedim(-1, dim).contiguous()


def _nms(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    """No box overlaps another: all stay, in the order they have."""
    with torch._C._DisableTorchDispatch():
        return torch.arange(len(args[0]))


# Bytes that an operator uses inside, beside its outputs, until it returns.
INSIDE: dict[str, Callable[[Any], int]] = {
    "aten._ctc_loss_backward.Tensor": _log_beta,
    "aten._ctc_loss_backward.default": _log_beta,
}

RULES: dict[str, Callable[[Callable[..., Any], Any, dict[str, Any]], Any]] = {
    "aten.mkldnn_rnn_layer.default": _lstm,
    "aten.mkldnn_rnn_layer_backward.default": _lstm_backward,
    "aten.native_group_norm_backward.default": _group_norm_backward,
    "aten._ctc_loss.Tensor": _ctc_loss,
    "aten._ctc_loss.default": _ctc_loss,
    "aten._ctc_loss_backward.Tensor": _ctc_loss_backward,
    "aten._ctc_loss_backward.default": _ctc_loss_backward,
    "torchaudio.rnnt_loss_forward.default": _transducer,
    "aten._grouped_mm.default": _grouped_matmul,
    "aten._pack_padded_sequence.default": _pack,
    "aten.nonzero.default": _nonzero,
    "aten.masked_select.default": _masked_select,
    "aten._unique2.default": _unique,
    "aten.unique_consecutive.default": _unique,
    "aten.topk.default": _topk,
    "aten.argmax.default": _argmax,
    "aten.argmin.default": _argmax,
    "torchvision.nms.default": _nms,
    **recurrent.RULES,
    **shortcuts.RULES,
}
