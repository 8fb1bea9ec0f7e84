"""Which attention kernel a CUDA device takes for a call, and what that kernel allocates.

After torch 2.11: the choice is `select_sdp_backend` (ATen/native/transformers/cuda/sdp_utils.cpp),
the calls are `scaled_dot_product_attention` (ATen/native/transformers/attention.cpp), the bytes
inside the backward kernels are `mha_bwd` (cuda/flash_attn/flash_api.cpp) and
`_efficient_attention_backward` (cuda/attention_backward.cu, mem_eff_attention/kernel_backward.h).
What is kept for backward is torch's own doing: the fused operators run here with their autograd
formulas, on fake tensors. ROCm's AOTriton kernels keep the same tensors; taken for CUDA's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

Kernel = Literal["cudnn", "flash", "efficient", "math"]
Capability = tuple[int, int]

_aten: Any = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
_NAMES: dict[int, Kernel] = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}
_DEFAULT_ORDER = [1, 2, 0, 3, 4]  # torch.nn.attention.SDPBackend, as torch starts with it


class Call(NamedTuple):
    """The arguments of one attention; query is [batch, heads, time, width]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None = None
    dropout: float = 0.0
    causal: bool = False
    scale: float | None = None
    grouped: bool = False

    def trains(self) -> bool:
        """Whether backward will ask for the softmax statistics."""
        inputs = (self.query, self.key, self.value)
        return torch.is_grad_enabled() and any(t.requires_grad for t in inputs)


def attend(call: Call, capability: Capability) -> torch.Tensor:
    """The output [batch, heads, time, width] by the kernel that CUDA takes."""
    return _RUN[choose(call, capability)](call)


def choose(call: Call, capability: Capability) -> Kernel:
    """The first kernel, in torch's order, that is switched on and takes these arguments."""
    for number in _order(capability):
        kernel = _NAMES.get(number)
        if kernel is not None and _ENABLED[kernel]() and _TAKES[kernel](call, capability):
            return kernel
    return "math"


def _order(capability: Capability) -> list[int]:
    """The user's own order, or torch's: cuDNN first on compute capability 9 and 10."""
    order = list(torch._C._get_sdp_priority_order())
    if order == _DEFAULT_ORDER and capability[0] in (9, 10):
        return [3, 1, 2, 0]
    return order


def _dense(call: Call, *, grouped: bool) -> bool:
    """What every fused kernel wants: four dimensions, one batch, heads that go together."""
    query, key, value = call.query, call.key, call.value
    tensors = (query, key, value)
    if any(t.dim() != 4 or t.is_nested or 0 in t.shape or t.stride(-1) != 1 for t in tensors):
        return False
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        return False
    if query.shape[1] == key.shape[1] == value.shape[1]:
        return True
    same = key.shape[1] == value.shape[1]
    return grouped and call.grouped and same and query.shape[1] % key.shape[1] == 0


def _takes_flash(call: Call, capability: Capability) -> bool:
    query, key, value = call.query, call.key, call.value
    width = query.shape[-1]
    if call.mask is not None or capability < (8, 0) or query.dtype not in _HALF:
        return False
    if not _dense(call, grouped=True) or width > 256:
        return False
    if not width == key.shape[-1] == value.shape[-1]:
        return False
    if call.causal and query.shape[2] != key.shape[2]:
        return False
    consumer = (8, 6) <= capability <= (8, 9) or (12, 0) <= capability <= (12, 1)
    return not (consumer and call.trains()) or width <= 192 or (width > 224 and not call.dropout)


def _takes_efficient(call: Call, capability: Capability) -> bool:
    query, key, value = call.query, call.key, call.value
    if query.dtype not in (torch.float32, *_HALF):
        return False
    if capability < (8, 0) and query.dtype == torch.bfloat16:
        return False
    step = _alignment(query.dtype, capability)
    if query.shape[-1] != key.shape[-1] or query.shape[-1] % step or value.shape[-1] % step:
        return False
    return _dense(call, grouped=False)


def _alignment(dtype: torch.dtype, capability: Capability) -> int:
    """Elements that the width must be a multiple of (`minimum_gemm_alignment`)."""
    half = dtype in _HALF
    if capability >= (8, 0):
        return 8 if half else 4
    return 8 if half and capability >= (7, 0) else 1


def _takes_cudnn(call: Call, capability: Capability) -> bool:
    query, key, value = call.query, call.key, call.value
    widths = (query.shape[-1], value.shape[-1])
    if capability < (8, 0) or query.dtype not in _HALF or not _dense(call, grouped=True):
        return False
    wide = widths == (192, 128) and capability[0] in (9, 10)
    if any(w % 8 for w in widths) or not (max(widths) <= 128 or wide):
        return False
    if key.shape[2] == 1 or (call.dropout and query.shape[2] == 1):
        return False
    return _plain_mask(call) and not torch.are_deterministic_algorithms_enabled()


def _plain_mask(call: Call) -> bool:
    """Whether cuDNN takes the mask: none, or a constant [time, keys] that may have heads."""
    if call.mask is None:
        return True
    batch, heads, time = call.query.shape[:3]
    whole = (batch, heads, time, call.key.shape[2])
    shape = call.mask.shape
    if call.mask.requires_grad or len(shape) not in (2, 4):
        return False
    return all(side in (1, full) for side, full in zip(shape[::-1], whole[::-1], strict=False))


def _flash(call: Call) -> torch.Tensor:
    width = call.query.shape[-1]
    scale = call.scale if call.scale is not None else 1 / math.sqrt(width)
    query, key, value = (_padded(t, 8) for t in (call.query, call.key, call.value))
    out: torch.Tensor = _aten._scaled_dot_product_flash_attention(
        query, key, value, call.dropout, call.causal, False, scale=scale
    )[0]
    return out if out.shape[-1] == width else out[..., :width]


def _efficient(call: Call) -> torch.Tensor:
    bias = _bias(call)
    if bias is not None:
        if bias.stride(-1) != 1 or any(step % 8 for step in bias.stride()[:-1]):
            last = bias.shape[-1]
            bias = torch.nn.functional.pad(bias, (0, 8 - last % 8))[..., :last]
        bias = bias.expand(*call.query.shape[:3], call.key.shape[2])
    out: torch.Tensor = _aten._scaled_dot_product_efficient_attention(
        call.query, call.key, call.value, bias, call.trains(), call.dropout, call.causal,
        scale=call.scale,
    )[0]  # fmt: skip
    return out


def _cudnn(call: Call) -> torch.Tensor:
    out: torch.Tensor = _aten._scaled_dot_product_cudnn_attention(
        call.query, call.key, call.value, _bias(call), call.trains(), call.dropout, call.causal,
        False, scale=call.scale,
    )[0]  # fmt: skip
    return out


def _math(call: Call) -> torch.Tensor:
    out: torch.Tensor = _aten._scaled_dot_product_attention_math(
        call.query, call.key, call.value, _bias(call), call.dropout, call.causal,
        scale=call.scale, enable_gqa=call.grouped,
    )[0]  # fmt: skip
    return out


def _bias(call: Call) -> torch.Tensor | None:
    """A boolean mask becomes a bias of the query's dtype, of the mask's own shape."""
    if call.mask is None or call.mask.dtype != torch.bool:
        return call.mask
    bias = torch.zeros_like(call.mask, dtype=call.query.dtype)
    return bias.masked_fill_(call.mask.logical_not(), -math.inf)


def _padded(tensor: torch.Tensor, step: int) -> torch.Tensor:
    missing = -tensor.shape[-1] % step
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _copied(tensor: torch.Tensor) -> int:
    """Bytes of the copy that [batch, time, heads, width] makes, where it is not dense."""
    return 0 if tensor.transpose(1, 2).is_contiguous() else int(tensor.nbytes)


def _flash_backward(args: Any) -> int:
    """dQ is summed in fp32, beside one statistic a row; grouped queries widen dK and dV."""
    grad, query, key = args[:3]
    batch, heads, time, width = query.shape
    rounded = _up(width, 32) if width <= 192 else 256
    rows = batch * heads * _up(time, 128)
    grouped = key.shape[1] != heads
    widened = 2 * batch * heads * key.shape[2] * width * key.element_size() if grouped else 0
    return int(4 * rows * (rounded + 1) + widened + _copied(grad))


def _efficient_backward(args: Any) -> int:
    """fp32: grad x output before it is summed. Half: dQ in fp32; dK and dV too above 128 wide."""
    grad, query, key, value = args[:4]
    batch, heads, time, width = query.shape
    rows = batch * heads * time
    if query.element_size() == 4:
        return int(_copied(grad) + 4 * rows * (value.shape[-1] + 1))
    accumulated = _up(time, 64) * _up(width, 64)
    if max(width, value.shape[-1]) > 128:
        splits = max(1, min(-(-key.shape[2] // 64), 200 // max(1, batch * heads)))
        accumulated += splits * 64 * (_up(width, 64) + _up(value.shape[-1], 64))
    return int(_copied(grad) + 4 * rows + 4 * batch * heads * accumulated)


def _cudnn_backward(args: Any) -> int:
    """Assumed, cuDNN's sources are closed: dQ in fp32 and one statistic a row."""
    query = args[1]
    return int(4 * query.numel() + 4 * query.numel() // query.shape[-1])


_RUN: dict[Kernel, Callable[[Call], torch.Tensor]] = {
    "cudnn": _cudnn,
    "flash": _flash,
    "efficient": _efficient,
    "math": _math,
}

_TAKES: dict[Kernel, Callable[[Call, Capability], bool]] = {
    "cudnn": _takes_cudnn,
    "flash": _takes_flash,
    "efficient": _takes_efficient,
    "math": lambda _call, _capability: True,
}

_ENABLED: dict[Kernel, Callable[[], bool]] = {
    "cudnn": torch._C._get_cudnn_sdp_enabled,
    "flash": torch._C._get_flash_sdp_enabled,
    "efficient": torch._C._get_mem_efficient_sdp_enabled,
    "math": torch._C._get_math_sdp_enabled,
}

# Bytes that an operator uses inside, beside its outputs, until it returns.
INSIDE: dict[str, Callable[[Any], int]] = {
    "aten._scaled_dot_product_flash_attention_backward.default": _flash_backward,
    "aten._scaled_dot_product_efficient_attention_backward.default": _efficient_backward,
    "aten._scaled_dot_product_cudnn_attention_backward.default": _cudnn_backward,
}
