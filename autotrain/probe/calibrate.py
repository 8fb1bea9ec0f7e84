"""Rates of every device of this machine: measured once and kept, or assumed by a stated rule."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.probe.disk import disk_key, write_bandwidth
from autotrain.probe.gpus import Gpu
from autotrain.probe.machines import datasheet_rates
from autotrain.probe.processor import clock_hertz, native_dtypes
from autotrain.probe.rating import measure
from autotrain.schema import Cpu, Dtype, PositiveFloat, Rates, Record
from autotrain.sensors import Quiet

CPU_SECONDS = 4.0
ALL_SECONDS = 6.0
# Rates measured while others used the CPU are too low, by three times and more: they serve for
# ten minutes only.
BUSY_SECONDS = 600.0

# The rule where nothing was measured. FLOPs a core and cycle: two fused multiply-adds of 8
# lanes (AVX2; many AVX-512 cores do no more), two of 4 lanes (ARM), one of 4 lanes (SSE).
# Half of that peak is what a matrix product reaches.
FLOPS_PER_CYCLE = {"avx512f": 32, "avx2": 32, "asimd": 16}
PLAIN_FLOPS_PER_CYCLE = 8
BF16_GAIN = {"amx_bf16": 8.0, "avx512_bf16": 2.0, "bf16": 2.0}
SHARE_OF_PEAK = 0.5
CPU_BANDWIDTH_PER_CORE, CPU_BANDWIDTH = 8e9, 40e9
CPU_OP_SECONDS, GPU_OP_SECONDS = 5e-6, 8e-6
# Tensor cores with fp32 accumulation over fp32 vector units, dense, by compute capability.
TENSOR_GAIN = {"7.0": 8.0, "7.5": 4.0, "8.0": 16.0, "9.0": 14.0, "10.0": 28.0}
GEFORCE_TENSOR_GAIN = 2.0
GPU_FP32_FLOPS, GPU_BANDWIDTH = 5e12, 200e9


@dataclass(frozen=True)
class Calibration:
    """`rates` has one entry per GPU, in their order, then the CPU's."""

    rates: tuple[Rates, ...]
    write_bandwidth: float | None


class _Saved(Record):
    """The cache file: rates by device, bytes per second by disk.

    `until` (seconds since 1970) is set where the machine was busy: after it, measure anew.
    """

    schema_version: Literal[2] = 2
    rates: dict[str, Rates] = Field(default_factory=dict)
    disks: dict[str, PositiveFloat] = Field(default_factory=dict)
    until: float | None = None


def calibration(
    cpu: Cpu, gpus: Sequence[Gpu], where: Path, *, calibrate: bool = True
) -> Calibration:
    """Rates from the cache; what it lacks is measured (up to 5 s) and kept, or assumed.

    The cache is `calibration-<digest>.json` in the cache folder; delete it to measure anew.
    A torn or foreign file is ignored; one from a busy moment serves ten minutes. On a GPU that
    cannot be measured (its memory is taken) the rates are assumed and not kept.
    """
    path = cache_file(cpu, gpus)
    saved = _load(path)
    if calibrate and saved.until is not None and saved.until < time.time():
        saved = _Saved()
    rates, disks = dict(saved.rates), dict(saved.disks)
    disk = disk_key(where)
    if calibrate and (disk not in disks or not {"cpu", *map(_gpu_key, gpus)} <= set(rates)):
        quiet = Quiet()
        found = _measure_missing(cpu, gpus, rates)
        busy = quiet.disturbed() is not None
        until = time.time() + BUSY_SECONDS if busy else saved.until
        rates |= {k: r.model_copy(update={"disturbed": busy or None}) for k, r in found.items()}
        if disk not in disks and (speed := write_bandwidth(where)):
            disks[disk] = speed
        if (rates, disks) != (saved.rates, saved.disks):
            _keep(path, _Saved(rates=rates, disks=disks, until=until))
    known = [rates.get(_gpu_key(gpu)) or datasheet_rates(gpu.name) for gpu in gpus]
    of_gpus = [f or assumed_gpu_rates(g) for f, g in zip(known, gpus, strict=True)]
    of_cpu = rates.get("cpu") or assumed_cpu_rates(cpu)
    return Calibration((*of_gpus, of_cpu), disks.get(disk))


def cache_file(cpu: Cpu, gpus: Sequence[Gpu]) -> Path:
    """One file per CPU, cores, torch version and set of GPUs."""
    key = {
        "cpu": cpu.name,
        "cores": cpu.cores,
        "features": cpu.features,
        "torch": _torch_version(),
        "timings": 2,  # counts the ways in which operators were timed
        "gpus": sorted(_gpu_key(gpu) for gpu in gpus),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return files.cache_directory() / f"calibration-{digest[:16]}.json"


def _measure_missing(cpu: Cpu, gpus: Sequence[Gpu], known: dict[str, Rates]) -> dict[str, Rates]:
    """Like GPUs are measured once. All together within ALL_SECONDS."""
    wanted: dict[str, tuple[Any, ...]] = {
        _gpu_key(gpu): (gpu.kind, gpu.index, gpu.native_dtypes) for gpu in gpus
    }
    wanted["cpu"] = ("cpu", 0, native_dtypes(cpu.features))
    wanted = {key: device for key, device in wanted.items() if key not in known}
    seconds = min(CPU_SECONDS, ALL_SECONDS / max(1, len(wanted)))
    found = {}
    for key, (kind, index, dtypes) in wanted.items():
        try:
            found[key] = measure(kind, index, dtypes, cpu.cores, seconds)
        except RuntimeError as error:  # out of memory, or no kernels for this GPU
            print(f"warning: {key} was not timed, its speed is assumed: {error}", file=sys.stderr)
    return found


def _gpu_key(gpu: Gpu) -> str:
    return f"{gpu.kind}:{gpu.name}"


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _load(path: Path) -> _Saved:
    try:
        return _Saved.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return _Saved()


def _keep(path: Path, saved: _Saved) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, saved.model_dump_json(indent=1))
    except (OSError, AutotrainError):  # a read-only home: measured again next time
        return


# --- assumed -------------------------------------------------------------------------------


def assumed_cpu_rates(cpu: Cpu) -> Rates:
    """cores x clock x FLOPs per cycle x one half; convolution as matmul."""
    per_cycle = next(
        (flops for name, flops in FLOPS_PER_CYCLE.items() if name in cpu.features),
        PLAIN_FLOPS_PER_CYCLE,
    )
    fp32 = cpu.cores * clock_hertz() * per_cycle * SHARE_OF_PEAK
    gain = next((gain for name, gain in BF16_GAIN.items() if name in cpu.features), 1.0)
    flops: dict[Dtype, float] = {
        dtype: fp32 * (gain if dtype == "bf16" else 1.0) for dtype in native_dtypes(cpu.features)
    }
    return Rates(
        matmul=flops,
        convolution=flops,
        bandwidth=min(CPU_BANDWIDTH, cpu.cores * CPU_BANDWIDTH_PER_CORE),
        op_seconds=CPU_OP_SECONDS,
        source="assumed",
    )


def assumed_gpu_rates(gpu: Gpu) -> Rates:
    """Peak FP32 x one half, times the tensor cores' gain; tf32 at half of fp16's rate."""
    fp32 = (gpu.fp32_flops or GPU_FP32_FLOPS) * SHARE_OF_PEAK
    gain = TENSOR_GAIN.get(gpu.compute_capability or "", GEFORCE_TENSOR_GAIN)
    gains = {"fp32": 1.0, "tf32": gain / 2, "bf16": gain, "fp16": gain}
    flops: dict[Dtype, float] = {dtype: fp32 * gains[dtype] for dtype in gpu.native_dtypes}
    return Rates(
        matmul=flops,
        convolution=flops,
        bandwidth=gpu.bandwidth or GPU_BANDWIDTH,
        op_seconds=GPU_OP_SECONDS,
        source="assumed",
    )
