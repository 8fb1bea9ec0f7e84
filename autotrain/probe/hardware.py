"""The machine we are on: cores, RAM, disk, CPU, GPUs, versions and rates, as one profile."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autotrain import __version__
from autotrain.nvml import nvml_driver
from autotrain.probe.calibrate import calibration
from autotrain.probe.disk import probe_disk
from autotrain.probe.gpus import Gpu, usable_gpus
from autotrain.probe.limits import usable_memory
from autotrain.probe.machines import load_machine, profile_toml
from autotrain.probe.power import has_battery
from autotrain.probe.processor import native_dtypes, probe_cpu
from autotrain.schema import Device, HardwareProfile, Rates

__all__ = ["load_machine", "probe_hardware", "profile_toml", "versions"]


def probe_hardware(where: Path, *, calibrate: bool = True) -> HardwareProfile:
    """This machine as a training process sees it. GPUs come first in `devices`, the CPU last.

    `where` is the folder runs go to (its disk is probed; it need not exist yet). The first call
    on a machine measures rates for up to 5 s and keeps them; `calibrate=False` never measures:
    kept rates, else a datasheet's, else assumed ones (`rates.source` says which).
    """
    cpu = probe_cpu()
    memory = usable_memory()
    gpus = usable_gpus()
    measured = calibration(cpu, gpus, where, calibrate=calibrate)
    devices = [_device(gpu, rates) for gpu, rates in zip(gpus, measured.rates, strict=False)]
    devices.append(
        Device(
            kind="cpu",
            name=cpu.name,
            total_bytes=memory.total_bytes,
            free_bytes=memory.available_bytes,
            native_dtypes=native_dtypes(cpu.features),
            rates=measured.rates[-1],
        )
    )
    return HardwareProfile(
        schema=1,
        name=_machine_name(devices[0].name),
        description=f"probed by autotrain {__version__}",
        system=system(),
        cpu=cpu,
        ram_total_bytes=memory.total_bytes,
        ram_available_bytes=memory.available_bytes,
        disk=probe_disk(where, measured.write_bandwidth),
        devices=tuple(devices),
        versions=versions(),
        battery=has_battery(),
    )


def versions() -> dict[str, str]:
    """Versions of what decides whether training works; absent ones are left out.

    torchaudio and torchvision are not imported: a mismatched one crashes. Verify with
    `pip list`, `nvidia-smi` and `python -m torch.utils.collect_env`.
    """
    import torch

    found = {"autotrain": __version__, "python": platform.python_version()}
    for package in ("torch", "torchaudio", "torchvision"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    driver = nvml_driver()
    told = {
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "cudnn": _cudnn_version(),
        "driver": driver.version if driver else None,
    }
    return found | {name: str(value) for name, value in told.items() if value}


def _cudnn_version() -> str | None:
    """`91900` as `9.19.0`."""
    import torch

    cudnn: Any = torch.backends.cudnn
    number = cudnn.version() if torch.version.cuda else None
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}" if number else None


def system() -> str:
    """`linux`, `wsl`, `macos` or `windows`. Verify with `uname -sr`."""
    name = platform.system().lower()
    if name == "linux" and "microsoft" in platform.release().lower():
        return "wsl"
    return {"darwin": "macos"}.get(name, name)


def _device(gpu: Gpu, rates: Rates) -> Device:
    return Device(
        kind=gpu.kind,
        index=gpu.index,
        name=gpu.name,
        total_bytes=gpu.total_bytes,
        free_bytes=min(gpu.free_bytes, gpu.total_bytes),
        compute_capability=gpu.compute_capability,
        native_dtypes=gpu.native_dtypes,
        rates=rates,
        neighbours=gpu.neighbours,
    )


def _machine_name(device: str) -> str:
    """A name from the first device, not from the host: profiles are handed to other people."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "machine"
