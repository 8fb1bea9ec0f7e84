"""A fake step on the CPU that allocates what the same step would allocate on a CUDA device.

Fake CUDA tensors fail in backward on a machine without a GPU, so the step runs on fake CPU
tensors, for which torch picks CPU kernels. Where CUDA takes another kernel that keeps or makes
other tensors, `seen_as` puts that one in place, in torch's own dispatcher, for as long as the
trace lasts: calls from Python, from C++ and from a checkpoint's second forward all meet it. The
operators themselves are torch's, with torch's autograd formulas and fake kernels.

What differs between CPU and CUDA in torch 2.11, and is done here or beside:

- `dropout` keeps a boolean mask instead of a noise tensor (native_dropout, Dropout.cpp); its
  feature, alpha and in-place forms are the same on both.
- `scaled_dot_product_attention`: another choice of kernels (`attention.py`).
- LSTM, GRU, RNN and their cells: cuDNN, or fused gates (`recurrent.py`).
- `softmax` and `log_softmax` of fp16 to fp32 make no fp32 copy of their input (SoftMax.cpp);
  softmax's backward multiplies gradient and output into a tensor of its own (SoftMax.cu).
- `rms_norm` is one kernel that keeps one statistic a row (layer_norm_kernel.cu).
- `max_pool1d` always makes indices (Pooling.cpp).
- `embedding`'s and `index`'s backward sort their indices (Embedding.cu, Indexing.cu).
- autocast has other lists of operators (`autocast.py`).

The same on both, as far as bytes go: batch_norm (cuDNN's reserve is empty but for channels-last
persistent kernels), layer_norm and group_norm (a few statistics), cross_entropy, gelu, silu,
pooling, upsampling, `linear` (addmm through a view), ctc_loss (native). Convolutions: see
`cuda_inside.py`. Left out, as small or only in evaluation: cuDNN's dropout states, flash's split
keys, what is inside of `nn.TransformerEncoderLayer`'s fast path, sorting, FFT plans. ROCm is
taken for CUDA. MPS is not: it is traced as a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from autotrain.probe.trace import attention, cuda_inside, recurrent, rules
from autotrain.probe.trace.autocast import (
    Casts,
    active,
    cuda_regions_count,
    implement,
    install,
    reading_cuda,
)
from autotrain.schema import CUDA_LIKE, Device

_PLAIN = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_ASSUMED = (8, 0)
# Not all exceptions: a checkpoint's second forward ends in one of its own.
_FAILED = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
_aten: Any = torch.ops.aten


@dataclass
class Lens:
    """What is emulated: a device's compute capability, and its autocast's copies of weights.

    `inside` says by operator how many bytes it uses beside its outputs, until it returns.
    """

    capability: attention.Capability
    inside: dict[str, Callable[[Any], int]]
    casts: Casts = field(default_factory=Casts)


@contextmanager
def seen_as(device: Device | None) -> Iterator[Lens | None]:
    """While it lasts, fake CPU tensors go through the kernels of `device`; None: as they are.

    Only CUDA and ROCm differ. An operator on real tensors, or one whose emulation fails, runs
    as it would without.
    """
    if device is None or device.kind not in CUDA_LIKE:
        yield None
        return
    capability = _capability(device)
    inside = {**rules.INSIDE, **INSIDE, **cuda_inside.inside(capability)}
    lens = Lens(capability, inside)
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():  # torch remarks on the first kernel that is replaced
            warnings.simplefilter("ignore")
            install(library, lens.casts)
            for name, emulate in _EMULATED.items():
                implement(library, name, _guarded(name, emulate, lens), "AutogradCPU")
        with cuda_regions_count():
            yield lens
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


@contextmanager
def autocast(lens: Lens | None, dtype: torch.dtype | None) -> Iterator[None]:
    """The precision of a forward pass (None: as the model is) with the casts of its device."""
    if lens is not None:
        with reading_cuda(lens.casts, dtype):
            yield
    else:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            yield


def _capability(device: Device) -> attention.Capability:
    """(major, minor) of "8.6" and its like; 8.0 for a device that does not say."""
    try:
        major, _, minor = (device.compute_capability or "").partition(".")
        return int(major), int(minor or 0)
    except ValueError:
        return _ASSUMED


def _guarded(name: str, emulate: Callable[..., Any], lens: Lens) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(_aten, packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        if any(isinstance(leaf, FakeTensor) for leaf in leaves):
            try:
                out = emulate(lens, *args, **kwargs)
            except _FAILED:
                out = None
            if out is not None:
                return out
        return op.redispatch(_PLAIN, *args, **kwargs)

    return kernel


def _dropout(_lens: Lens, data: torch.Tensor, p: float, train: bool) -> torch.Tensor | None:
    return torch.native_dropout(data, p, True)[0] if train and 0 < p < 1 and data.numel() else None


def _attention(
    lens: Lens,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    call = attention.Call(query, key, value, mask, dropout, causal, scale, enable_gqa)
    return attention.attend(call, lens.capability)


def _softmax(
    _lens: Lens, data: torch.Tensor, dim: int, dtype: torch.dtype | None = None
) -> torch.Tensor | None:
    fused = data.dtype == torch.float16 and dtype == torch.float32
    return torch._softmax(data, dim, True) if fused else None


def _log_softmax(
    _lens: Lens, data: torch.Tensor, dim: int, dtype: torch.dtype | None = None
) -> torch.Tensor | None:
    fused = data.dtype == torch.float16 and dtype == torch.float32
    return torch._log_softmax(data, dim, True) if fused else None


def _max_pool1d(_lens: Lens, *args: Any, **kwargs: Any) -> torch.Tensor:
    return _aten.max_pool1d_with_indices(*args, **kwargs)[0]  # type: ignore[no-any-return]


def _rms_norm(
    _lens: Lens, data: torch.Tensor, shape: list[int], weight: torch.Tensor | None, _eps: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    return _RmsNorm.apply(data, len(shape), weight)  # type: ignore[no-any-return, no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    """Shapes only: keeps its input, its weight and 1 / rms of each row in fp32."""

    @staticmethod
    def forward(ctx: Any, data: torch.Tensor, dims: int, weight: torch.Tensor | None) -> Any:
        rows = data.new_empty(*data.shape[:-dims], *[1] * dims, dtype=torch.float32)
        ctx.mark_non_differentiable(rows)
        ctx.save_for_backward(data, weight, rows)
        return torch.empty_like(data), rows

    @staticmethod
    def backward(ctx: Any, _grad: torch.Tensor, _rows: Any) -> Any:
        data, weight, _ = ctx.saved_tensors
        wanted = weight is not None and ctx.needs_input_grad[2]
        return torch.empty_like(data), None, torch.empty_like(weight) if wanted else None


def _recurrent(mode: str) -> Callable[..., Any]:
    """`lstm.input` and its like: a batch of one length, padded."""

    def run(_lens: Lens, data: torch.Tensor, state: Any, params: Any, *rest: Any) -> Any:
        state = state if mode == "lstm" else [state]
        number = recurrent.MODES[mode]
        return _by_cudnn(recurrent.Recurrent(number, data, (), state, params, *rest))

    return run


def _packed(mode: str) -> Callable[..., Any]:
    """`lstm.data` and its like: a packed sequence."""

    def run(
        _lens: Lens, data: torch.Tensor, sizes: torch.Tensor, state: Any, params: Any, *rest: Any
    ) -> Any:
        if isinstance(sizes, FakeTensor):
            return None  # how long the sequences are is not known
        state = state if mode == "lstm" else [state]
        number = recurrent.MODES[mode]
        return _by_cudnn(
            recurrent.Recurrent(number, data, sizes.tolist(), state, params, *(*rest, False))
        )

    return run


def _by_cudnn(call: recurrent.Recurrent) -> Any:
    if not torch.backends.cudnn.enabled:
        return None
    return recurrent.run(call, active())


def _lstm_cell(_lens: Lens, *args: Any) -> Any:
    return recurrent.lstm_cell(*args)


def _gru_cell(_lens: Lens, *args: Any) -> Any:
    return recurrent.gru_cell(*args)


# Composite operators of which CUDA's composition differs. None as an answer: run as it is.
_EMULATED: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "scaled_dot_product_attention": _attention,
    "softmax.int": _softmax,
    "log_softmax.int": _log_softmax,
    "max_pool1d": _max_pool1d,
    "_fused_rms_norm": _rms_norm,
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
    **{f"{mode}.input": _recurrent(mode) for mode in recurrent.MODES},
    **{f"{mode}.data": _packed(mode) for mode in recurrent.MODES},
}


def _softmax_backward(args: Any) -> int:
    grad = args[0]
    return int(grad.numel() * grad.element_size())


def _embedding_backward(args: Any) -> int:
    """Sorted indices, and one row of sums for each run of ten equal ones (Embedding.cu)."""
    grad, indices, rows = args[:3]
    count, width = indices.numel(), grad.shape[-1]
    if count <= 3072 and not args[4]:
        return 0
    partial = count // 10 + min(count, rows)
    return int(8 * 4 * count + 4 * partial * width)


def _index_put(args: Any) -> int:
    """Where it accumulates, the indices are sorted, with room for the sort (Indexing.cu)."""
    given = [i for i in args[1] if i is not None]
    if len(args) < 4 or not args[3] or not given:
        return 0
    count = max(i.numel() for i in given)
    return int(8 * 5 * count)


# Bytes that an operator uses inside on CUDA, beside its outputs, until it returns.
INSIDE: dict[str, Callable[[Any], int]] = {
    **attention.INSIDE,
    **recurrent.INSIDE,
    "aten._softmax_backward_data.default": _softmax_backward,
    "aten.embedding_dense_backward.default": _embedding_backward,
    "aten.index_put.default": _index_put,
    "aten.index_put_.default": _index_put,
    "aten._index_put_impl_.default": _index_put,
    "aten._unsafe_index_put.default": _index_put,
}
