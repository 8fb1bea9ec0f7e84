"""Floating-point operations of one operator, where torch's own counter does not know better."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from autotrain.probe.trace import recurrent
from autotrain.probe.trace.rules import LstmLayer

CONVOLUTIONS = ("aten.convolution.", "aten._convolution.")
CONVOLUTION_BACKWARD = "aten.convolution_backward."
_ATTENTION = tuple(
    f"aten._scaled_dot_product_{kernel}_attention" for kernel in ("flash", "efficient", "cudnn")
)


def flops_of(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> float:
    """Floating-point operations of one operator; 0 for what only moves bytes."""
    name = str(func)
    if name.startswith("aten.mkldnn_rnn_layer"):
        return LstmLayer.of(args).flops() * (2 if "backward" in name else 1)
    if name.startswith("aten._cudnn_rnn"):
        return recurrent.flops(name, args)
    if name.startswith(_ATTENTION):
        backward = "backward" in name
        query, key = args[1:3] if backward else args[0:2]
        return 2.0 * float(query.numel() * key.shape[2]) * (5 if backward else 2)
    if name == "aten._grouped_mm.default":
        rows, inner = args[0].shape[-2:]
        groups = args[0].shape[0] if args[0].dim() == args[1].dim() == 3 else 1
        return 2.0 * groups * float(rows * inner * args[1].shape[-1])
    if name.startswith(CONVOLUTIONS):
        return _convolution_flops(args[0] if args[6] else out, args[1])
    if name.startswith(CONVOLUTION_BACKWARD):
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
