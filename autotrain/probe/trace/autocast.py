"""CUDA's autocast on CPU tensors: the same casts, made as tensors, so that they are counted.

Torch keeps a policy for each device (ATen/autocast_mode.h and .cpp, 2.11). Those operators that
the CPU's policy treats as CUDA's does (conv, linear, matmul, most losses) keep their kernel and
its weight cache; the rest are put in its place here, or taken out of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

from autotrain.errors import AutotrainError

Policy = Literal["lower", "fp32", "fp32_dtype", "fp32_norm", "promote", "banned"]

_KEY = "AutocastCPU"
_HERE = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
_aten: Any = torch.ops.aten

# What CUDA's policy has and the CPU's has not, or has otherwise.
POLICIES: dict[Policy, tuple[str, ...]] = {
    "lower": (
        "_convolution", "_scaled_dot_product_flash_attention", "_thnn_fused_gru_cell",
        "_thnn_fused_lstm_cell", "addmv", "addr", "chain_matmul", "convolution",
        "cudnn_convolution", "cudnn_convolution_transpose", "einsum", "gru_cell",
        "linalg_multi_dot", "lstm_cell", "mv", "rnn_relu_cell", "rnn_tanh_cell",
    ),
    "fp32": (
        "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "acos", "asin",
        "cosh", "cosine_similarity", "dist", "erfinv", "exp", "expm1", "frobenius_norm.dim",
        "group_norm", "layer_norm", "log", "log10", "log1p", "log2", "logsumexp",
        "native_layer_norm", "nuclear_norm", "nuclear_norm.dim", "pdist", "pow.Scalar",
        "pow.Tensor_Scalar", "pow.Tensor_Tensor", "reciprocal", "renorm", "rsqrt", "sinh",
        "softplus", "tan", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d",
        "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d",
    ),
    "fp32_dtype": (
        "cumprod", "cumprod.dimname", "cumsum", "cumsum.dimname", "linalg_matrix_norm",
        "linalg_matrix_norm.str_ord", "linalg_vector_norm", "log_softmax.Dimname",
        "log_softmax.int", "prod", "prod.dim_Dimname", "prod.dim_int", "softmax.Dimname",
        "softmax.int", "sum", "sum.dim_DimnameList", "sum.dim_IntList",
    ),
    "fp32_norm": ("norm.Scalar", "norm.ScalarOpt_dim", "norm.names_ScalarOpt_dim"),
    "promote": (
        "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sampler", "index_put",
        "scatter_add", "tensordot", "vdot",
    ),
    "banned": ("binary_cross_entropy",),
}  # fmt: skip

# `norm` has a dtype in an overload of its own.
_NORMS = {
    "norm.Scalar": "norm.ScalarOpt_dtype",
    "norm.ScalarOpt_dim": "norm.ScalarOpt_dim_dtype",
    "norm.names_ScalarOpt_dim": "norm.names_ScalarOpt_dim_dtype",
}


class Casts:
    """Weights in the lower precision: made once, and alive until the forward pass ends."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def cast(self, dtype: torch.dtype, value: Any) -> Any:
        """The value in `dtype`, if it is a tensor that autocast touches."""
        if not _eligible(value) or value.dtype == dtype:
            return value
        lasting = value.is_leaf and value.requires_grad and not value._is_view()
        if not (lasting and dtype == low() and torch.is_autocast_cache_enabled()):
            return value.to(dtype)
        if id(value) not in self.made:
            self.made[id(value)] = (value, value.to(dtype))
        return self.made[id(value)][1]


def low() -> torch.dtype:
    """The lower precision that is in force."""
    return torch.get_autocast_dtype("cpu")


def active() -> torch.dtype | None:
    """The lower precision, where autocast is on here."""
    return low() if torch.is_autocast_enabled("cpu") else None


def install(library: torch.library.Library, casts: Casts) -> None:
    """Turn the CPU's autocast into CUDA's for as long as `library` lives."""
    for policy, names in POLICIES.items():
        for name in names:
            implement(library, name, _MAKE[policy](name, casts), _KEY)
    for name in cpu_alone():
        implement(library, name, torch.library.fallthrough_kernel, _KEY)


def implement(library: Any, name: str, kernel: Callable[..., Any], key: str) -> None:
    """Have `kernel` answer for an aten operator at a dispatch key while `library` lives."""
    library.impl(name, kernel, key, allow_override=True)


@functools.cache
def cpu_alone() -> tuple[str, ...]:
    """Operators that autocast touches on a CPU and not on CUDA."""
    ours, theirs = registered("AutocastCPU"), registered("AutocastCUDA")
    return tuple(sorted(ours - theirs - {name for names in POLICIES.values() for name in names}))


@functools.cache
def registered(key: str) -> frozenset[str]:
    """Names of the aten operators that have a kernel for this dispatch key."""
    names = (n for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::"))
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return frozenset(n.removeprefix("aten::") for n in names if has(n, key))


@contextmanager
def reading_cuda(casts: Casts, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast to `dtype` (None: off), such that code that asks for CUDA's state finds it."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        if dtype is not None:
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", dtype)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        casts.made.clear()


@contextmanager
def cuda_regions_count() -> Iterator[None]:
    """Regions of `torch.autocast("cuda", ...)` in user code apply to the CPU's tensors."""
    cls: Any = torch.amp.autocast_mode.autocast
    original = cls.__init__

    def start(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
        original(self, device_type, dtype, *args, **kwargs)

    cls.__init__ = start
    try:
        yield
    finally:
        cls.__init__ = original


def _eligible(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dtype != torch.float64
        and value.device.type == "cpu"
    )


def _op(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(_aten, packet), overload or "default")


def _all_cast(casts: Casts, dtype: torch.dtype, tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: casts.cast(dtype, leaf), tree)


def _lower(name: str, casts: Casts) -> Callable[..., Any]:
    op = _op(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_HERE):
            args, kwargs = _all_cast(casts, low(), (args, kwargs))
            return op(*args, **kwargs)

    return kernel


def _fp32(name: str, casts: Casts) -> Callable[..., Any]:
    op = _op(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_HERE):
            args, kwargs = _all_cast(casts, torch.float32, (args, kwargs))
            return op(*args, **kwargs)

    return kernel


def _fp32_dtype(name: str, _casts: Casts) -> Callable[..., Any]:
    op = _op(name)
    place = [a.name for a in op._schema.arguments if not a.kwarg_only].index
    named = any(a.name == "dtype" and a.kwarg_only for a in op._schema.arguments)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_HERE):
            given = kwargs.get("dtype")
            if not named and len(args) > place("dtype"):
                given = args[place("dtype")]
                args = args[: place("dtype")]
            if given is None and _eligible(args[0]):
                given = torch.float32
            return op(*args, **{**kwargs, "dtype": given})

    return kernel


def _fp32_norm(name: str, _casts: Casts) -> Callable[..., Any]:
    op, plain = _op(_NORMS[name]), _op(name)
    names = [a.name for a in plain._schema.arguments]
    defaults = {"p": 2, "keepdim": False}

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_HERE):
            if not _eligible(args[0]):
                return plain(*args, **kwargs)
            given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
            return op(*(given[n] for n in names), dtype=torch.float32)

    return kernel


def _promote(name: str, casts: Casts) -> Callable[..., Any]:
    op = _op(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_HERE):
            leaves = pytree.tree_leaves((args, kwargs))
            wide = any(_eligible(leaf) and leaf.dtype == torch.float32 for leaf in leaves)
            args, kwargs = _all_cast(casts, torch.float32 if wide else low(), (args, kwargs))
            return op(*args, **kwargs)

    return kernel


def _banned(name: str, _casts: Casts) -> Callable[..., Any]:
    def kernel(*_args: Any, **_kwargs: Any) -> Any:
        raise AutotrainError(
            f"{name} is refused by autocast on a GPU: its probabilities do not fit a lower "
            "precision",
            f"use {name}_with_logits, which takes what comes before the sigmoid, or "
            "--set precision.dtype=fp32",
        )

    return kernel


_MAKE: dict[Policy, Callable[[str, Casts], Callable[..., Any]]] = {
    "lower": _lower,
    "fp32": _fp32,
    "fp32_dtype": _fp32_dtype,
    "fp32_norm": _fp32_norm,
    "promote": _promote,
    "banned": _banned,
}
