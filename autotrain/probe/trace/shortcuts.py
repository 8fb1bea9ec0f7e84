"""Operators whose fake kernel is composed of many: their outputs, told at once.

A fake kernel that writes to running statistics, or is a decomposition, takes about a
millisecond, and a network has hundreds. What they make follows from the shapes of what they
take; where a call is out of the ordinary, the fake kernel itself runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Run = Callable[..., Any]

_ELEMENTWISE_BACKWARD = (
    "silu_backward", "sigmoid_backward", "gelu_backward", "hardswish_backward", "elu_backward",
    "hardsigmoid_backward", "hardtanh_backward", "leaky_relu_backward", "mish_backward",
    "softplus_backward", "tanh_backward", "threshold_backward",
)  # fmt: skip


def _batch_norm(run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
    """Output like the input; in training, the mean and inverse deviation of each channel."""
    if kwargs:
        return run(*args, **kwargs)
    inputs, training = args[0], args[5]
    channels = inputs.shape[1] if training else 0
    return torch.empty_like(inputs), inputs.new_empty(channels), inputs.new_empty(channels)


def _batch_norm_backward(run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
    if kwargs or not args[7]:
        return run(*args, **kwargs)
    return _three(args[1], args[2], args[9])


def _layer_norm(run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
    """Output like the input, and the mean and inverse deviation of each row."""
    inputs, shape = args[0], args[1]
    if kwargs or not inputs.is_contiguous():
        return run(*args, **kwargs)
    rows = (*inputs.shape[: inputs.dim() - len(shape)], *[1] * len(shape))
    return torch.empty_like(inputs), inputs.new_empty(rows), inputs.new_empty(rows)


def _layer_norm_backward(run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
    if kwargs or not args[1].is_contiguous() or args[5] is None or args[6] is None:
        return run(*args, **kwargs)
    return _three(args[1], args[5], args[7])


def _three(inputs: torch.Tensor, weight: torch.Tensor | None, wanted: Any) -> Any:
    """The gradients of the input, the weight and the bias, where they are wanted."""
    return (
        torch.empty_like(inputs) if wanted[0] else None,
        torch.empty_like(weight) if wanted[1] and weight is not None else None,
        torch.empty_like(weight) if wanted[2] and weight is not None else None,
    )


def _elementwise_backward(run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
    """As large as the gradient that came, which is as large as the input was."""
    gradient, other = args[0], args[1]
    if not isinstance(other, torch.Tensor):  # elu_backward has its numbers first
        other = args[-1]
    plain = gradient.shape == other.shape and gradient.dtype == other.dtype
    if not plain or gradient.stride() != other.stride():
        return run(*args, **kwargs)
    return torch.empty_like(other)


RULES: dict[str, Callable[[Run, Any, dict[str, Any]], Any]] = {
    "aten.native_batch_norm.default": _batch_norm,
    "aten.native_batch_norm_backward.default": _batch_norm_backward,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.native_layer_norm_backward.default": _layer_norm_backward,
    **{f"aten.{name}.default": _elementwise_backward for name in _ELEMENTWISE_BACKWARD},
}
