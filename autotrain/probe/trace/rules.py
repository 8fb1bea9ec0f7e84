"""Operators that fake tensors get wrong or refuse, each with a rule of its own.

A rule is a function of the operator's arguments to its outputs, on fake tensors. Data
that a shape depends on is bounded by its upper size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes


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
    log_probs, targets = args[0], args[1]
    time, batch = log_probs.shape[0], log_probs.shape[1]
    longest = targets.shape[1] if targets.dim() == 2 else -(-targets.numel() // batch)
    return log_probs.new_empty(batch), log_probs.new_empty(batch, time, 2 * longest + 1)


def _ctc_loss_backward(_run: Callable[..., Any], args: Any, _kwargs: dict[str, Any]) -> Any:
    return torch.empty_like(args[1])


def _log_beta(args: Any) -> int:
    """The backward variables of CTC are as many as the forward ones, `log_alpha`."""
    return int(args[6].nbytes)


# Bytes that an operator uses inside, beside its outputs, until it returns.
INSIDE: dict[str, Callable[[Any], int]] = {
    "aten._ctc_loss_backward.Tensor": _log_beta,
    "aten._ctc_loss_backward.default": _log_beta,
}

RULES: dict[str, Callable[[Callable[..., Any], Any, dict[str, Any]], Any]] = {
    "aten.mkldnn_rnn_layer.default": _lstm,
    "aten._ctc_loss.Tensor": _ctc_loss,
    "aten._ctc_loss.default": _ctc_loss,
    "aten._ctc_loss_backward.Tensor": _ctc_loss_backward,
    "aten._ctc_loss_backward.default": _ctc_loss_backward,
}
