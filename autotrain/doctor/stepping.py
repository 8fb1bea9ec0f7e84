"""Real training steps on a device, beside the same ones on the CPU in fp64."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

from autotrain.device import Precision
from autotrain.schema import Dtype

STEPS = 3
_SAMPLES, _SIDE, _CLASSES = 32, 24, 10
_LR, _MOMENTUM = 0.05, 0.9


def on_all(kind: str, dtype: str, seconds: float) -> list[dict[str, Any]]:
    """On every device of a kind: its name, and what came of fp32 and of `dtype`.

    `auto`: bf16 where the GPU has it, else fp16. All of a device's steps take `seconds`.
    """
    return [
        {
            "name": str(device),
            "tried": [
                _tried(device, each, seconds / 2) for each in ("fp32", _chosen(dtype, device))
            ],
        }
        for device in _devices(kind)
    ]


def _devices(kind: str) -> list[torch.device]:
    if kind in ("cpu", "mps"):
        return [torch.device(kind)]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def _chosen(dtype: str, device: torch.device) -> str:
    if dtype != "auto":
        return dtype
    bf16 = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if bf16 else "fp16"


def _tried(device: torch.device, dtype: Any, seconds: float) -> dict[str, Any]:
    try:
        with _computing_in(dtype):
            return {"dtype": dtype, **_measured(device, dtype, seconds)}
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        return {"dtype": dtype, "problem": f"{type(error).__name__}: {text[0][:300]}"}


@contextmanager
def _computing_in(dtype: Dtype) -> Iterator[None]:
    """fp32 means fp32: a GPU may otherwise round its products to tf32."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if dtype == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = dtype != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


def _measured(device: torch.device, dtype: Dtype, seconds: float) -> dict[str, Any]:
    """The first few steps beside the reference, and again and again while there is time.

    `error`: how far the weights are from where the reference's are, as a share of the way these
    went; `drift`: how far a later time is from the first, likewise; `finite`: every time.
    """
    start, batch = _model(), _batch()
    wanted = _trained(start, batch, torch.device("cpu"), None)
    way = (wanted - _weights(start)).norm()
    begun, first, each = perf_counter(), None, list[float]()
    drift, finite = 0.0, True
    while first is None or len(each) < 2 or perf_counter() - begun < seconds:
        before = perf_counter()
        got = _trained(start, batch, device, Precision(dtype, device))
        each.append((perf_counter() - before) / STEPS)
        first = got if first is None else first
        finite &= bool(torch.isfinite(got).all())
        drift = max(drift, float((got - first).norm() / way))
    error = float((first - wanted).norm() / way)
    told = {"error": error, "drift": drift, "finite": finite}
    return {**told, "steps": STEPS * len(each), "step_seconds": statistics.median(each)}


def _trained(
    start: nn.Module,
    batch: tuple[torch.Tensor, torch.Tensor],
    device: torch.device,
    precision: Precision | None,
) -> torch.Tensor:
    """All weights after `STEPS` steps; without a precision in fp64."""
    precise = torch.float64 if precision is None else torch.float32
    precision = precision or Precision("fp32", device)
    model = copy.deepcopy(start).to(device, precise).train()
    inputs, labels = batch[0].to(device, precise), batch[1].to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=_MOMENTUM)
    # From a scale at which nothing overflows: a step passed over would not be the reference's.
    scaler = GradScaler(device.type, init_scale=1024.0, enabled=precision.dtype == "fp16")
    for _ in range(STEPS):
        with precision.autocast():
            loss = functional.cross_entropy(model(inputs).to(precise), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    return _weights(model)


def _model() -> nn.Module:
    """Convolutions, norms, products: what most models are made of. Always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(48 * 16, 256), nn.LayerNorm(256), nn.GELU(),
            nn.Linear(256, _CLASSES),
        )  # fmt: skip


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    inputs = torch.randn(_SAMPLES, 3, _SIDE, _SIDE, generator=generator)
    return inputs, torch.randint(_CLASSES, (_SAMPLES,), generator=generator)


def _weights(model: nn.Module) -> torch.Tensor:
    parts = [each.detach().cpu().double().flatten() for each in model.parameters()]
    return torch.cat(parts)
