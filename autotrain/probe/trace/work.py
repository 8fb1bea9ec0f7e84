"""What an operator of a traced step costs like: its kind, FLOPs, bytes and shape.

Operators of one kind take about equal time for equal bytes; products, and what works on planes of
pictures, where their shapes are about equal too. A machine's timings (`probe/timings.py`) tell how
long. The kinds:

products    matmul, convolution, convolution_backward, depthwise, depthwise_backward, attention,
            attention_backward, rnn, rnn_backward
planes      batch_norm, batch_norm_backward, pool, pool_backward
by bytes    elementwise, elementwise_inplace, special, layer_norm, layer_norm_backward, softmax,
            reduce, copy, transpose, fill, random, gather, scatter, sort, ctc
by calls    view
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from autotrain.schema import Work

_DTYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float64: "fp64",
}
_NAMES = {
    "matmul": "mm addmm bmm baddbmm mv addmv dot addbmm _grouped_mm",
    "batch_norm": "native_batch_norm _native_batch_norm_legit _batch_norm_with_update "
    "cudnn_batch_norm",
    "batch_norm_backward": "native_batch_norm_backward batch_norm_backward "
    "cudnn_batch_norm_backward",
    "layer_norm": "native_layer_norm native_group_norm _fused_rms_norm",
    "layer_norm_backward": "native_layer_norm_backward native_group_norm_backward "
    "_fused_rms_norm_backward",
    "copy": "clone copy_ _to_copy cat stack constant_pad_nd repeat flip roll fold im2col col2im",
    "fill": "fill_ zero_ zeros ones full new_zeros new_ones zeros_like ones_like full_like "
    "new_full arange nll_loss_backward nll_loss2d_backward",
    "call": "nll_loss_forward nll_loss2d_forward",
    "random": "bernoulli_ bernoulli native_dropout normal_ randn uniform_ rand rand_like "
    "randn_like randint randperm exponential_ multinomial",
    "gather": "embedding index index_select gather _embedding_bag grid_sampler_2d",
    "scatter": "embedding_dense_backward index_put index_put_ _unsafe_index_put _index_put_impl_ "
    "scatter scatter_ scatter_add scatter_add_ index_add index_add_",
    "sort": "sort topk argsort kthvalue median",
    "ctc": "_ctc_loss _ctc_loss_backward _cudnn_ctc_loss",
    "special": "exp expm1 log log1p log2 log10 sin cos tan tanh sigmoid gelu silu erf erfc erfinv "
    "softplus mish elu logit pow log_sigmoid_forward gelu_backward silu_backward mish_backward "
    "softplus_backward elu_backward atan2 lgamma digamma",
}
_BY_NAME = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_BY_PART = (  # the first that is part of the name
    ("convolution", "convolution"),
    ("_attention", "attention"),
    ("_rnn", "rnn"),
    ("softmax", "softmax"),
    ("pool", "pool"),
    ("upsample", "gather"),
    ("dropout", "elementwise"),
)
VIEW = Work("view", "", 1, 0.0, 0.0)
_PRODUCTS = ("matmul", "convolution", "attention", "rnn", "depthwise")
_PLANES = ("batch_norm", "pool")
_DIRECTED = ("convolution", "attention", "rnn", "pool", "depthwise")


def work(
    func: Any, args: Any, flops: float, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
) -> Work:
    """One call of an operator; `calls` is 1."""
    kind = _kind(func)
    moved = float(sum(t.numel() * t.element_size() for t in (*inputs, *outputs)))
    dtype = _dtype(outputs or inputs)
    shape: tuple[int, ...] = ()
    if kind == "matmul":
        shape = _matmul_shape(inputs)
    elif kind.startswith("convolution"):
        shape = _convolution_shape(args, outputs, backward=kind.endswith("backward"))
        if shape and shape[0] > 1 and shape[2] <= 2:
            kind = kind.replace("convolution", "depthwise")
    elif kind.startswith("attention"):
        query, key = inputs[1 if kind.endswith("backward") else 0].shape, inputs[1].shape
        shape = (math.prod(query[:-2]), query[-2], key[-2], query[-1])
    elif kind.startswith("rnn"):
        shape = _rnn_shape(args)
    elif kind.startswith(_PLANES):
        shape = _planes(args[1] if kind == "pool_backward" else inputs[0])
    elif kind == "copy" and _turned(inputs, outputs):
        kind = "transpose"
    if kind.startswith(_PRODUCTS):
        dtype = _dtype(inputs)
    return Work(kind, dtype, 1, flops, moved, shape)


@functools.cache
def _kind(func: Any) -> str:
    """What an operator's time goes like."""
    name = func._schema.name.partition("::")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    back = "_backward" if "backward" in name else ""
    for part, kind in _BY_PART:
        if part in name:
            return kind + (back if kind in _DIRECTED else "")
    if _BY_NAME.get(name.removesuffix("_")) == "special":
        return "special"
    if torch.Tag.pointwise in func.tags or back:
        return "elementwise_inplace" if func._schema.is_mutable else "elementwise"
    if torch.Tag.reduction in func.tags:
        return "reduce"
    return "elementwise_inplace" if func._schema.is_mutable else "elementwise"


def _dtype(tensors: list[torch.Tensor]) -> str:
    """Of the first floating-point tensor; `int` where there is none."""
    return next((_DTYPES[t.dtype] for t in tensors if t.dtype in _DTYPES), "int")


def _matmul_shape(inputs: list[torch.Tensor]) -> tuple[int, ...]:
    left, right = inputs[-2:]
    batches = left.shape[0] if left.dim() == 3 else 1
    rows = left.shape[-2] if left.dim() > 1 else 1
    columns = right.shape[-1] if right.dim() > 1 else 1
    return batches, rows, columns, left.shape[-1]


def _convolution_shape(
    args: Any, outputs: list[torch.Tensor], *, backward: bool
) -> tuple[int, ...]:
    """(groups, rows, columns, inner): a position of the output is a row.

    A transposed convolution is one from its output to its input.
    """
    given, weight = (args[1], args[2]) if backward else (args[0], args[1])
    grown, groups = (args[7], args[9]) if backward else (args[6], args[8])
    small = given if grown else (args[0] if backward else outputs[0])
    rows = small.numel() // max(small.shape[1], 1)
    return groups, rows, weight.shape[0] // groups, math.prod(weight.shape[1:])


def _planes(tensor: Any) -> tuple[int, ...]:
    """(samples, channels, positions) of pictures, sounds and volumes; or nothing."""
    if not isinstance(tensor, torch.Tensor) or tensor.dim() < 3:
        return ()
    return tensor.shape[0], tensor.shape[1], math.prod(tensor.shape[2:])


def _rnn_shape(args: Any) -> tuple[int, ...]:
    """(1, samples, gates, features and state) of the product in each of its steps; or nothing."""
    if not isinstance(args[1], torch.Tensor) or args[0].dim() != 3:
        return ()
    return 1, args[0].shape[1], args[1].shape[0], args[0].shape[2] + args[1].shape[0] // 4


def _turned(inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> bool:
    """Whether elements end up in another order than they were."""
    source, target = inputs[-1], (outputs or inputs)[0]
    return source.dim() > 1 and source.shape == target.shape and source.stride() != target.stride()
