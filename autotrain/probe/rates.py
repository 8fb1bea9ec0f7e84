"""Short measurements of what one device really does: FLOP/s, bytes per second, seconds per op.

Every piece runs in bursts of equal time, the bursts of all pieces taking turns, so that a clock
that drifts or a neighbour that wakes up falls on all of them; the median burst counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from autotrain.schema import DeviceKind, Dtype, Rates
from autotrain.units import MIB

ROUNDS = 7
RATES_SHARE = 0.2  # of the time on a CPU; the rest goes to operators
MATMUL_SIDE = {"cpu": 1024, "cuda": 4096, "rocm": 4096, "mps": 2048}
CONVOLUTION_BATCH = {"cpu": 16, "cuda": 64, "rocm": 64, "mps": 32}
CONVOLUTION_CHANNELS, CONVOLUTION_SIDE = 64, 56
CHAIN_LINKS, CHAIN_OPS = 64, 4


@dataclass(frozen=True)
class Piece:
    """One thing to time. `work` is the FLOPs, bytes or ops of one call."""

    name: str
    work: float
    call: Callable[[], object]
    tf32: bool = False


def measure(
    kind: DeviceKind, index: int, dtypes: Sequence[Dtype], threads: int, seconds: float
) -> Rates:
    """Measured rates of a device, in about `seconds`. RuntimeError where the device refuses.

    FLOPs count a multiply and an add as two. Matrices are square (1024 on a CPU, 4096 on CUDA);
    the convolution is a forward 3x3 over 64 channels of 56 x 56, contiguous. `op_seconds` is a
    chain of tiny ops, forward and backward, over the ops it ran. On a CPU two thirds of the time
    go to operators one by one, on one thread and on all. `torch.get_num_threads()` is afterwards
    what it was.
    """
    import torch

    from autotrain.probe import timings

    device = torch.device("cuda" if kind == "rocm" else kind, 0 if kind == "cpu" else index)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    on_cpu = kind == "cpu"
    share = RATES_SHARE if on_cpu else 1.0
    try:
        pieces = _pieces(torch, device, kind, dtypes)
        per_second = _per_second(torch, device, pieces, share * seconds)
        left = (1.0 - share) * seconds
        found = timings.measure(sorted({1, threads}), dtypes, left) if on_cpu else ()
    finally:
        torch.set_num_threads(before)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return Rates(
        matmul={d: per_second[f"matmul {d}"] for d in dtypes},
        convolution={d: per_second[f"convolution {d}"] for d in dtypes},
        bandwidth=per_second["copy"],
        op_seconds=1 / per_second["ops"],
        source="measured",
        timings=found,
    )


# --- what is timed -------------------------------------------------------------------------


def _pieces(torch: Any, device: Any, kind: DeviceKind, dtypes: Sequence[Dtype]) -> list[Piece]:
    pieces = [_copy(torch, device), _ops(torch, device)]
    for dtype in dtypes:
        pieces.append(_matmul(torch, device, MATMUL_SIDE[kind], dtype))
        pieces.append(_convolution(torch, device, CONVOLUTION_BATCH[kind], dtype))
    return pieces


def _ramp(torch: Any, device: Any, dtype: Dtype, *shape: int) -> Any:
    """Values from -1 to 1: no zeros to skip, no denormals, and no random state used up."""
    names = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    flat = torch.linspace(-1, 1, torch.Size(shape).numel(), device=device)
    return flat.reshape(shape).to(getattr(torch, names[dtype]))


def _matmul(torch: Any, device: Any, side: int, dtype: Dtype) -> Piece:
    left, right = (_ramp(torch, device, dtype, side, side) for _ in range(2))
    into = torch.empty_like(left)
    return Piece(
        f"matmul {dtype}",
        2.0 * side**3,
        lambda: torch.mm(left, right, out=into),
        tf32=dtype == "tf32",
    )


def _convolution(torch: Any, device: Any, batch: int, dtype: Dtype) -> Piece:
    channels, side = CONVOLUTION_CHANNELS, CONVOLUTION_SIDE
    images = _ramp(torch, device, dtype, batch, channels, side, side)
    kernel = _ramp(torch, device, dtype, channels, channels, 3, 3)
    return Piece(
        f"convolution {dtype}",
        2.0 * batch * side**2 * channels**2 * 9,
        lambda: torch.nn.functional.conv2d(images, kernel, padding=1),
        tf32=dtype == "tf32",
    )


def _copy(torch: Any, device: Any) -> Piece:
    """Bytes read plus bytes written. On a CPU 8 MiB a thread is past any L3 slice of today."""
    size = 256 * MIB
    if device.type == "cpu":
        size = min(512 * MIB, max(64 * MIB, torch.get_num_threads() * 8 * MIB))
    source = _ramp(torch, device, "fp32", size // 4)
    target = torch.empty_like(source)
    return Piece("copy", 2.0 * size, lambda: target.copy_(source))


def _ops(torch: Any, device: Any) -> Piece:
    """tanh and multiply forward, multiply and tanh_backward backward: four ops a link."""
    start = _ramp(torch, device, "fp32", 64).requires_grad_()
    factor = _ramp(torch, device, "fp32", 64)

    def chain() -> object:
        with torch.enable_grad():
            end = start
            for _ in range(CHAIN_LINKS):
                end = torch.tanh(end) * factor
            return torch.autograd.grad(end, start, factor)

    return Piece("ops", float(CHAIN_LINKS * CHAIN_OPS), chain)


# --- how it is timed -----------------------------------------------------------------------


def _per_second(
    torch: Any, device: Any, pieces: Sequence[Piece], seconds: float
) -> dict[str, float]:
    """Work per second by piece: a cold call, a warm one that sets the burst, then rounds."""

    def burst(piece: Piece, calls: int) -> float:
        with _precision(torch, device, tf32=piece.tf32):
            _synchronize(torch, device)
            start = time.perf_counter()
            for _ in range(calls):
                piece.call()
            _synchronize(torch, device)
            return (time.perf_counter() - start) / calls

    deadline = time.perf_counter() + seconds
    with torch.no_grad():
        warm = {p.name: min(burst(p, 1), burst(p, 1)) for p in pieces}
        share = max(0.0, deadline - time.perf_counter()) / (len(pieces) * ROUNDS)
        taken: dict[str, list[float]] = {p.name: [] for p in pieces}
        for _ in range(ROUNDS):
            for piece in pieces:
                if time.perf_counter() + warm[piece.name] < deadline:
                    calls = max(1, int(share / warm[piece.name]))
                    taken[piece.name].append(burst(piece, calls))
    return {p.name: p.work / median(taken[p.name] or [warm[p.name]]) for p in pieces}


def _synchronize(torch: Any, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _precision(torch: Any, device: Any, *, tf32: bool) -> Iterator[None]:
    """fp32 as fp32 and tf32 as tf32 on CUDA, whatever the process has chosen for itself."""
    if device.type != "cuda":
        yield
        return
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
