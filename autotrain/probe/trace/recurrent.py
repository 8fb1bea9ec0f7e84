"""LSTM, GRU and plain RNN as cuDNN runs them: one operator for all layers and steps.

After torch 2.11: `_cudnn_impl` in ATen/native/cudnn/RNN.cpp, its autocast wrapper in
ATen/cudnn/AutocastRNN.cpp, the fused cells in ATen/native/cuda/RNN.cu. The operators run here
with their own autograd formulas; what they return is made by the rules below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

_aten: Any = torch.ops.aten
MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
_GATES = (1, 1, 4, 3)
# Kept for backward, for each hidden unit of each step and layer; see `_reserve`.
_KEPT = (1, 1, 5, 6)
_BUSY = (3, 3, 11, 8)


class Layers(NamedTuple):
    """What a call of `_cudnn_rnn` works on."""

    mode: int
    steps: int
    batch: int
    hidden: int
    out: int
    layers: int
    directions: int
    train: bool
    size: int  # bytes of an element
    weights: int  # elements of all weight matrices

    @classmethod
    def of(cls, data: torch.Tensor, weights: Sequence[torch.Tensor], options: Any) -> Layers:
        """`options` are the operator's arguments from `mode` to `batch_sizes`."""
        mode, hidden, projected, layers, batch_first, _, train, bidirectional, sizes = options
        if sizes:
            steps, batch = len(sizes), int(sizes[0])
        else:
            batch, steps = data.shape[:2] if batch_first else (data.shape[1], data.shape[0])
        matrices = sum(w.numel() for w in weights if w.dim() == 2)
        return cls(
            mode, steps, batch, hidden, projected or hidden, layers, 2 if bidirectional else 1,
            train, data.element_size(), matrices,
        )  # fmt: skip

    def reserve(self) -> int:
        """Bytes kept for backward: by unit and step, 5 for an LSTM (4 gates and the cell), 6
        for a GRU, and the output of every layer but the last.

        Fitted to what cuDNN 7 answered for fp32 in github.com/pytorch/pytorch/issues/2895:
        736,000,000 (LSTM) and 864,000,000 (GRU). The shape is inferred, not printed there: its
        parameter counts fit 4 layers of 320 on 123 features, and then 250 steps of 100 meet
        these and both workspaces to the byte. One for a plain RNN is assumed, and so is that
        cuDNN 9, directions, other layer counts and dropout between layers change nothing else.
        """
        if not self.train:
            return 0
        units = self.layers * self.hidden * _KEPT[self.mode] + (self.layers - 1) * self.out
        return self.steps * self.batch * self.directions * units * self.size

    def workspace(self) -> int:
        """Bytes while it runs: the weights once more, and some rows of units for each layer.

        The same source and fit: 17,730,560 and 13,169,920 bytes, with 11 rows for an LSTM and 8
        for a GRU; 3 for a plain RNN is assumed.
        """
        rows = self.layers * self.directions * self.batch * self.hidden * _BUSY[self.mode]
        return (self.weights + rows) * self.size

    def flops(self) -> float:
        """Of the forward pass: each weight meets each step of each sample."""
        return 2.0 * self.steps * self.batch * self.weights


class Recurrent(NamedTuple):
    """The arguments that `lstm.input`, `gru.data` and their like have in common."""

    mode: int
    data: torch.Tensor
    sizes: Sequence[int]
    state: Sequence[torch.Tensor]
    params: Sequence[torch.Tensor]
    biased: bool
    layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool


def run(call: Recurrent, low: torch.dtype | None) -> tuple[torch.Tensor, ...]:
    """Output and final states by cuDNN; `low` is the dtype of autocast, where it is on."""
    data, state, params = call.data, list(call.state), list(call.params)
    if low is None or data.dtype == torch.float64:
        buffer = params[0].detach() if all(p.is_leaf for p in params) else None
    else:
        data, state = data.to(low), [s.to(low) for s in state]
        buffer, params = _flattened(params, low)
    cell = state[1] if call.mode == MODES["lstm"] else None
    hidden = (state[0] if cell is None else cell).shape[2]
    out = state[0].shape[2]
    out = 0 if out == hidden else out
    stride = (4 if call.biased else 2) + bool(out)
    result = _aten._cudnn_rnn(
        data, params, stride, buffer, state[0], cell, call.mode, hidden, out, call.layers,
        call.batch_first, call.dropout, call.train, call.bidirectional, list(call.sizes), None,
    )  # fmt: skip
    return tuple(result[: 2 if cell is None else 3])


def _flattened(
    params: Sequence[torch.Tensor], low: torch.dtype
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Autocast copies the weights into one new buffer at every call, each under autograd."""
    buffer = params[0].new_zeros(sum(p.numel() for p in params), dtype=low)
    parts = torch.split(buffer, [p.numel() for p in params])
    made = [part.view(p.shape).detach() for part, p in zip(parts, params, strict=True)]
    return buffer, [part.copy_(p) for part, p in zip(made, params, strict=True)]


def lstm_cell(
    data: torch.Tensor, state: Sequence[torch.Tensor], *weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step: two products, then all gates in one kernel."""
    inner, outer = _gates(data, state[0], weights)
    hidden, cell, _ = _aten._thnn_fused_lstm_cell(inner, outer, state[1], *weights[2:])
    return hidden, cell


def gru_cell(
    data: torch.Tensor, state: torch.Tensor, *weights: torch.Tensor | None
) -> torch.Tensor:
    """One step: two products, then all gates in one kernel."""
    inner, outer = _gates(data, state, weights)
    hidden: torch.Tensor = _aten._thnn_fused_gru_cell(inner, outer, state, *weights[2:])[0]
    return hidden


def _gates(
    data: torch.Tensor, hidden: torch.Tensor, weights: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    inner, outer = weights[:2]
    assert inner is not None
    assert outer is not None
    return torch.matmul(data, inner.t()), torch.matmul(hidden, outer.t())


def _forward(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    data, weights, _, buffer, hidden, cell = args[:6]
    shape = Layers.of(data, weights, args[6:15])
    width = shape.out * shape.directions
    if args[14]:
        output = data.new_empty(data.shape[0], width)
    else:
        output = data.new_empty(shape.steps, shape.batch, width)
        output = output.transpose(0, 1) if args[10] else output
    reserve = data.new_empty(shape.reserve(), dtype=torch.uint8)
    if buffer is None:
        buffer = data.new_empty(sum(w.numel() for w in weights))
    final = data.new_empty(0) if cell is None else torch.empty_like(cell)
    return output, torch.empty_like(hidden), final, reserve, buffer


def _backward(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    """Gradients; those of the weights are views of one flat buffer, as the weights are."""
    data, weights, _, _, hidden, cell = args[:6]
    turned = args[14] and not args[18]
    grad = torch.empty_like(data.transpose(0, 1) if turned else data).contiguous()
    grad = grad.transpose(0, 1) if turned else grad
    grads = [data.new_empty(0) for _ in weights]
    if args[21][3]:
        flat = data.new_empty(sum(w.numel() for w in weights))
        parts = flat.split([w.numel() for w in weights])
        grads = [part.view(w.shape) for part, w in zip(parts, weights, strict=True)]
    final = data.new_empty(0) if cell is None else torch.empty_like(cell)
    return grad, torch.empty_like(hidden), final, grads


def _gru_cell_forward(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    hidden = args[2]
    return torch.empty_like(hidden), hidden.new_empty(hidden.shape[0], 5 * hidden.shape[1])


def _gru_cell_backward(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    grad, _, biased = args
    rows, width = grad.shape
    inner, outer = grad.new_empty(rows, 3 * width), grad.new_empty(rows, 3 * width)
    bias = grad.new_empty(3 * width if biased else 0)
    return inner, outer, torch.empty_like(grad), bias, torch.empty_like(bias)


def _turned(data: torch.Tensor, args: Any, at: int) -> int:
    """Bytes of the copy that puts time first."""
    return int(data.nbytes) if args[at] and not args[at + 4] else 0


def _inside(args: Any) -> int:
    shape = Layers.of(args[0], args[1], args[6:15])
    return shape.workspace() + _turned(args[0], args, 10)


def _inside_backward(args: Any) -> int:
    shape = Layers.of(args[0], args[1], args[10:19])
    grad = args[7]
    dense = grad is None or (grad.transpose(0, 1) if args[14] else grad).is_contiguous()
    missing = args[6].nbytes if grad is None else 0
    copies = _turned(args[0], args, 14) + (0 if dense else int(grad.nbytes)) + missing
    return shape.workspace() + copies


def flops(name: str, args: Any) -> float:
    """Floating-point operations of `_cudnn_rnn` or its backward; 0 for what else is so named."""
    if name == "aten._cudnn_rnn.default":
        return Layers.of(args[0], args[1], args[6:15]).flops()
    if name == "aten._cudnn_rnn_backward.default":
        return Layers.of(args[0], args[1], args[10:19]).flops() * (1 + bool(args[21][3]))
    return 0.0


RULES: dict[str, Callable[[Callable[..., Any], Any, dict[str, Any]], Any]] = {
    "aten._cudnn_rnn.default": _forward,
    "aten._cudnn_rnn_backward.default": _backward,
    "aten._thnn_fused_gru_cell.default": _gru_cell_forward,
    "aten._thnn_fused_gru_cell_backward.default": _gru_cell_backward,
}

INSIDE: dict[str, Callable[[Any], int]] = {
    "aten._cudnn_rnn.default": _inside,
    "aten._cudnn_rnn_backward.default": _inside_backward,
}
