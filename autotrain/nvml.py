"""What the NVIDIA driver tells about its GPUs, without creating a CUDA context.

A machine without a driver, or without the library, answers quickly and silently with nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autotrain.schema import Neighbour


@dataclass(frozen=True)
class NvmlGpu:
    """One physical GPU, in PCI bus order. Rates are the vector units' and the memory's peak."""

    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]
    neighbours: tuple[Neighbour, ...] = ()
    split: bool = False
    fp32_flops: float | None = None
    bandwidth: float | None = None


@dataclass(frozen=True)
class Driver:
    """The driver's own version and the newest CUDA it serves: `580.65`, `13.0`."""

    version: str
    cuda: tuple[int, int]


@dataclass(frozen=True)
class Load:
    """What a GPU does just now. `utilisation`: the share of the last moments (1/6 to 1 s) in which
    any kernel ran. `slowed`: why its clock is held down, in words; None where it is not.
    """

    utilisation: float | None = None
    celsius: float | None = None
    watts: float | None = None
    slowed: str | None = None


@dataclass(frozen=True)
class Health:
    """What may be wrong with a GPU; each None where nobody tells.

    `compute_mode`: "default", "exclusive" or "prohibited". `repair_pending`, `repair_failed`: rows
    of its memory that wait to be replaced, or could not be. `display`: it draws a screen.
    """

    compute_mode: str | None = None
    uncorrected_errors: int | None = None
    repair_pending: bool | None = None
    repair_failed: bool | None = None
    display: bool | None = None
    watts_cap: float | None = None
    watts_default: float | None = None
    slowed: str | None = None


_COMPUTE_MODES = {0: "default", 1: "exclusive", 2: "prohibited", 3: "exclusive"}
# nvml.h, nvmlClocksEventReasons: those that say something is wrong. A power cap is how GPUs run
# at full load, and idleness is nobody's fault.
SLOWED = {
    0x40: "hardware thermal slowdown",
    0x20: "thermal slowdown",
    0x80: "power brake",
}


@contextmanager
def _library() -> Iterator[Any]:
    """The NVML module while initialised, or None where there is no library or driver."""
    nvml = _opened()
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def _opened() -> Any:
    """The NVML module, initialised, or None."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    return pynvml


def nvml_problem() -> str | None:
    """Why the driver does not answer, in its words; None where it does."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError as error:
        return str(error)
    except pynvml.NVMLError as error:
        return str(error)
    pynvml.nvmlShutdown()
    return None


def load_reader(uuid: str) -> Callable[[], Load] | None:
    """A function that reads the load of the GPU `GPU-<uuid>`; None where nobody tells.

    NVML stays open. Verify with `nvidia-smi --query-gpu=utilization.gpu,temperature.gpu,power.draw,
    clocks_event_reasons.active --format=csv`.
    """
    nvml = _opened()
    if nvml is None:
        return None
    handle = _ask(nvml, nvml.nvmlDeviceGetHandleByUUID, f"GPU-{uuid}".encode())
    if handle is None:
        nvml.nvmlShutdown()
        return None
    return lambda: _load(nvml, handle)


def _load(nvml: Any, handle: Any) -> Load:
    busy = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    heat = _ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    # Its name in every driver; newer ones know it by another one too.
    reasons = _ask(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    return Load(
        utilisation=None if busy is None else busy.gpu / 100,
        celsius=None if heat is None else float(heat),
        watts=None if milliwatts is None else milliwatts / 1000,
        slowed=", ".join(why for bit, why in SLOWED.items() if reasons & bit) or None,
    )


def nvml_driver() -> Driver | None:
    """Verify with `nvidia-smi` (first line)."""
    with _library() as nvml:
        if nvml is None:
            return None
        version = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
        cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2) or 0
        return Driver(str(version or "unknown"), (cuda // 1000, cuda % 1000 // 10))


def nvml_gpus() -> list[NvmlGpu]:
    """All GPUs the driver shows, in PCI bus order, whether or not torch can use them.

    Verify with `nvidia-smi --query-gpu=name,uuid,memory.total,memory.free,compute_cap
    --format=csv` and `nvidia-smi` (processes).
    """
    with _library() as nvml:
        if nvml is None:
            return []
        return [_gpu(nvml, handle) for handle in _handles(nvml)]


def nvml_health() -> list[Health]:
    """Of all GPUs, in the order of `nvml_gpus`. Verify with `nvidia-smi -q`."""
    with _library() as nvml:
        if nvml is None:
            return []
        return [_health(nvml, handle) for handle in _handles(nvml)]


def _health(nvml: Any, handle: Any) -> Health:
    rows = _ask(nvml, nvml.nvmlDeviceGetRemappedRows, handle) or (None,) * 4
    cap = _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    default = _ask(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    display = _ask(nvml, nvml.nvmlDeviceGetDisplayActive, handle)
    kind, since = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    return Health(
        compute_mode=_COMPUTE_MODES.get(_ask(nvml, nvml.nvmlDeviceGetComputeMode, handle)),
        uncorrected_errors=_ask(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, kind, since),
        repair_pending=rows[2] if rows[2] is None else bool(rows[2]),
        repair_failed=rows[3] if rows[3] is None else bool(rows[3]),
        display=display if display is None else bool(display),
        watts_cap=None if cap is None else cap / 1000,
        watts_default=None if default is None else default / 1000,
        slowed=_load(nvml, handle).slowed,
    )


def used_bytes(uuid: str) -> int | None:
    """Bytes in use by everyone on the GPU `GPU-<uuid>`; None where nobody tells.

    Verify with `nvidia-smi --query-gpu=uuid,memory.used --format=csv`.
    """
    with _library() as nvml:
        if nvml is None:
            return None
        handle = _ask(nvml, nvml.nvmlDeviceGetHandleByUUID, f"GPU-{uuid}".encode())
        memory = handle and _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        return int(memory.used) if memory and memory.total > 0 else None


def _handles(nvml: Any) -> list[Any]:
    count = _ask(nvml, nvml.nvmlDeviceGetCount) or 0
    found = (_ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index) for index in range(count))
    return [handle for handle in found if handle is not None]


def _gpu(nvml: Any, handle: Any) -> NvmlGpu:
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is None or memory.total <= 0:  # unified memory (Jetson, DGX Spark): RAM it is
        import psutil

        ram = psutil.virtual_memory()
        total, free = ram.total, ram.available
    else:
        total, free = memory.total, memory.free
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle) or [0]
    return NvmlGpu(
        name=str(_ask(nvml, nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU"),
        uuid=str(_ask(nvml, nvml.nvmlDeviceGetUUID, handle) or ""),
        total_bytes=total,
        free_bytes=free,
        capability=_ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle) or (0, 0),
        neighbours=_neighbours(nvml, handle),
        split=mode[0] == 1,
        fp32_flops=_fp32_flops(nvml, handle),
        bandwidth=_bandwidth(nvml, handle),
    )


def _fp32_flops(nvml: Any, handle: Any) -> float | None:
    """CUDA cores x 2 (multiply and add) x highest clock."""
    cores = _ask(nvml, nvml.nvmlDeviceGetNumGpuCores, handle)
    megahertz = _ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
    return cores * 2 * megahertz * 1e6 if cores and megahertz else None


def _bandwidth(nvml: Any, handle: Any) -> float | None:
    """Bus width in bytes x 2 (double data rate) x memory clock."""
    bits = _ask(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle)
    megahertz = _ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    return bits / 8 * 2 * megahertz * 1e6 if bits and megahertz else None


def _neighbours(nvml: Any, handle: Any) -> tuple[Neighbour, ...]:
    """Other processes on the GPU, largest first. Windows does not tell how much they hold: 0."""
    used: dict[int, int] = {}
    queries = (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    )
    for query in queries:
        for process in _ask(nvml, query, handle) or []:
            used[process.pid] = max(used.get(process.pid, 0), process.usedGpuMemory or 0)
    used.pop(os.getpid(), None)
    ordered = sorted(used.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Neighbour(pid=p, name=_process_name(p), used_bytes=b) for p, b in ordered)


def _process_name(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except (psutil.Error, OSError, ValueError):  # another user's, another container's, or gone
        return "unknown"


def _ask(nvml: Any, query: Any, *arguments: Any) -> Any:
    """One answer, or None where this GPU or this driver does not give it."""
    try:
        return query(*arguments)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return None
