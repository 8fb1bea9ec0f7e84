"""The CPU: its name, the instructions that make training faster, and what they are worth."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotrain.probe.limits import ROOT, usable_cores
from autotrain.schema import Cpu, Dtype

# Our name -> what /proc/cpuinfo, `sysctl -a` on a Mac or torch.cpu.get_capabilities call it.
FEATURES = {
    "avx2": ("avx2", "hw.optional.avx2_0"),
    "avx512f": ("avx512f", "avx512_f", "hw.optional.avx512f"),
    "avx512_bf16": ("avx512_bf16",),
    "avx512_fp16": ("avx512_fp16",),
    "amx_tile": ("amx_tile",),
    "amx_bf16": ("amx_bf16",),
    "amx_fp16": ("amx_fp16",),
    "asimd": ("asimd", "neon", "hw.optional.AdvSIMD"),
    "sve": ("sve",),
    "bf16": ("bf16", "hw.optional.arm.FEAT_BF16"),
}
BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def probe_cpu(root: Path = ROOT) -> Cpu:
    """Name, usable cores and features. Verify with `lscpu`, `nproc`."""
    name, features = _identify(root)
    return Cpu(
        name=name,
        cores=usable_cores(root),
        logical=os.cpu_count() or 1,
        features=features,
    )


def native_dtypes(features: tuple[str, ...]) -> tuple[Dtype, ...]:
    """fp32 always; bf16 where the CPU multiplies it itself rather than through fp32."""
    return ("fp32", "bf16") if BF16_FEATURES & set(features) else ("fp32",)


def clock_hertz() -> float:
    """The CPU's highest known clock; 2.5 GHz where the system does not tell. See `lscpu`."""
    import psutil

    try:
        clock = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError, RuntimeError):
        clock = None
    megahertz = max(clock.max or 0.0, clock.current or 0.0) if clock else 0.0
    return megahertz * 1e6 if megahertz > 100 else 2.5e9


def _identify(root: Path) -> tuple[str, tuple[str, ...]]:
    if sys.platform == "darwin":
        return _from_sysctl()
    if sys.platform == "win32":
        return _from_torch()
    return parse_cpuinfo(_read(root / "proc/cpuinfo"))


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and features from the text of `/proc/cpuinfo` (x86: `flags`, ARM: `Features`)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name or "unknown CPU", _known(flags)


def _from_sysctl() -> tuple[str, tuple[str, ...]]:
    asked = [n for names in FEATURES.values() for n in names if n.startswith("hw.")]
    on = {name for name in asked if _sysctl(name) == "1"}
    return _sysctl("machdep.cpu.brand_string") or platform.processor(), _known(on)


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _from_torch() -> tuple[str, tuple[str, ...]]:
    import torch

    told: Mapping[str, Any] = torch.cpu.get_capabilities()
    on = {name for name, value in told.items() if value is True}
    return str(told.get("cpu_name") or platform.processor() or "unknown CPU"), _known(on)


def _known(flags: set[str]) -> tuple[str, ...]:
    return tuple(name for name, aliases in FEATURES.items() if flags & set(aliases))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
