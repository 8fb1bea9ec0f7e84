"""The GPUs that torch can train on here: CUDA, ROCm, MPS. Empty where there is none.

Through NVML where it answers, because asking CUDA itself would create a context, which takes a
few hundred MiB of the very memory we count.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotrain.nvml import NvmlGpu, nvml_driver, nvml_gpus
from autotrain.schema import DeviceKind, Dtype, Neighbour

# AMD architectures whose matrix units take bf16: CDNA 1 to 4, RDNA 3 and 4.
ROCM_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch numbers it. `fp32_flops` and `bandwidth` are peaks, where the system tells."""

    kind: DeviceKind
    index: int
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: str | None
    native_dtypes: tuple[Dtype, ...]
    neighbours: tuple[Neighbour, ...] = ()
    fp32_flops: float | None = None
    bandwidth: float | None = None


def usable_gpus() -> list[Gpu]:
    """GPUs by torch's own index, `CUDA_VISIBLE_DEVICES` respected. Verify with `nvidia-smi -L`
    and `python -c "import torch; print(torch.cuda.device_count())"`.
    """
    import torch

    if torch.backends.mps.is_available():
        return [_mps_gpu(torch)]
    built_for = torch.version.cuda
    if built_for is None:
        return _from_torch(torch, []) if torch.version.hip else []
    found = nvml_gpus()
    if found:
        driver = nvml_driver()
        if driver is not None and driver.cuda[0] < int(built_for.split(".")[0]):
            return []  # torch cannot start on a driver of an older CUDA generation
        seen = visible_gpus(found, os.environ)
        if seen is not None:
            return [_from_nvml(index, gpu) for index, gpu in enumerate(seen)]
    return _from_torch(torch, found)


def cuda_dtypes(capability: tuple[int, int]) -> tuple[Dtype, ...]:
    """What the tensor cores take: from 8.0 (Ampere) tf32 and bf16 too, from 7.0 (Volta) fp16."""
    if capability >= (8, 0):
        return ("fp32", "tf32", "bf16", "fp16")
    return ("fp32", "fp16") if capability >= (7, 0) else ("fp32",)


# --- which of NVML's GPUs torch sees, and in which order ---------------------------------------


def visible_gpus(found: Sequence[NvmlGpu], environment: Mapping[str, str]) -> list[NvmlGpu] | None:
    """NVML's GPUs (PCI bus order) as CUDA numbers them, or None where only CUDA can tell.

    CUDA puts the fastest first unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`, so indices over unlike
    GPUs are ambiguous here; so are GPUs split with MIG. As CUDA does, a list ends at its first
    entry that names nothing, and a GPU named twice leaves none.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    names = None if listed is None else [entry.strip() for entry in listed.split(",")]
    if any(gpu.split for gpu in found) or any(n.startswith("MIG-") for n in names or ()):
        return None
    by_bus = environment.get("CUDA_DEVICE_ORDER", "").upper() == "PCI_BUS_ID"
    alike = by_bus or len({(gpu.name, gpu.total_bytes) for gpu in found}) < 2
    if names is None:
        return list(found) if alike else None
    if not alike and any(name.isdigit() for name in names):
        return None
    chosen: list[int] = []
    for name in names:
        index = _position(name, found)
        if index is None:
            break
        chosen.append(index)
    return [] if len(set(chosen)) < len(chosen) else [found[index] for index in chosen]


def _position(name: str, found: Sequence[NvmlGpu]) -> int | None:
    if name.isdigit():
        return int(name) if int(name) < len(found) else None
    matches = [i for i, gpu in enumerate(found) if name and gpu.uuid.startswith(name)]
    return matches[0] if len(matches) == 1 else None


def _from_nvml(index: int, gpu: NvmlGpu) -> Gpu:
    return Gpu(
        kind="cuda",
        index=index,
        name=gpu.name,
        total_bytes=gpu.total_bytes,
        free_bytes=gpu.free_bytes,
        compute_capability=f"{gpu.capability[0]}.{gpu.capability[1]}",
        native_dtypes=cuda_dtypes(gpu.capability),
        neighbours=gpu.neighbours,
        fp32_flops=gpu.fp32_flops,
        bandwidth=gpu.bandwidth,
    )


# --- where only torch can tell ---------------------------------------------------------------


def _from_torch(torch: Any, found: Sequence[NvmlGpu]) -> list[Gpu]:
    """CUDA without NVML (Jetson), unlike GPUs, MIG, ROCm. May create a context."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unusable driver is the doctor's to report
        if not torch.cuda.is_available():
            return []
        return [_torch_gpu(torch, index, found) for index in range(torch.cuda.device_count())]


def _torch_gpu(torch: Any, index: int, found: Sequence[NvmlGpu]) -> Gpu:
    told = torch.cuda.get_device_properties(index)
    same = next((g for g in found if g.uuid == f"GPU-{told.uuid}" and not g.split), None)
    if same is not None:
        return _from_nvml(index, same)
    free, total = torch.cuda.mem_get_info(index)
    rocm = torch.version.hip is not None
    architecture = told.gcnArchName.split(":")[0] if rocm else f"{told.major}.{told.minor}"
    return Gpu(
        kind="rocm" if rocm else "cuda",
        index=index,
        name=told.name,
        total_bytes=total,
        free_bytes=free,
        compute_capability=architecture,
        native_dtypes=(
            rocm_dtypes(architecture) if rocm else cuda_dtypes((told.major, told.minor))
        ),
        bandwidth=told.memory_bus_width / 8 * 2 * told.memory_clock_rate * 1e3 or None,
    )


def rocm_dtypes(architecture: str) -> tuple[Dtype, ...]:
    """By AMD architecture (`gfx1100`). Verify with `rocminfo | grep gfx`."""
    return ("fp32", "bf16", "fp16") if architecture.startswith(ROCM_BF16) else ("fp32", "fp16")


def _mps_gpu(torch: Any) -> Gpu:
    """An Apple GPU: the memory is RAM, up to what Metal recommends for one process."""
    import psutil

    from autotrain.probe.processor import probe_cpu

    total = int(torch.mps.recommended_max_memory())
    taken = int(torch.mps.driver_allocated_memory())
    modern = tuple(int(p) for p in platform.mac_ver()[0].split(".")[:1]) >= (14,)
    return Gpu(
        kind="mps",
        index=0,
        name=f"{probe_cpu().name} GPU",
        total_bytes=total,
        free_bytes=max(0, min(total - taken, psutil.virtual_memory().available)),
        compute_capability=None,
        native_dtypes=("fp32", "bf16", "fp16") if modern else ("fp32", "fp16"),
    )
