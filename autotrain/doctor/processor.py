"""The processor: how much of it this process may use, and what slows it down."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene, word
from autotrain.doctor.spelling import busiest, setting, unsetting

_OFF = ("", "0", "false", "no", "off")
# Variables that slow down, and the values with which they do not.
_SLOWING = {
    "CUDA_LAUNCH_BLOCKING": _OFF, "HIP_LAUNCH_BLOCKING": _OFF, "AMD_SERIALIZE_KERNEL": _OFF,
    "PYTORCH_NO_CUDA_MEMORY_CACHING": _OFF, "PYTORCH_NO_HIP_MEMORY_CACHING": _OFF,
    "ATEN_CPU_CAPABILITY": ("", "avx2", "avx512", "vsx", "zvector", "sve256"),
    "ONEDNN_MAX_CPU_ISA": ("", "all", "default"), "ONEDNN_VERBOSE": _OFF, "DNNL_VERBOSE": _OFF,
    "PYTHONMALLOC": ("", "default", "malloc", "pymalloc", "mimalloc"), "PYTHONDEVMODE": ("", "0"),
}  # fmt: skip


def cores(scene: Scene) -> Result:
    """The cores that this process may use: affinity, and a container's quota."""
    from autotrain.probe.limits import affinity_cores, cpu_quota, usable_cores

    everyone, allowed = os.cpu_count() or 1, affinity_cores()
    quota, usable = cpu_quota(scene.root), usable_cores(scene.root)
    if quota is not None and quota < 1:
        mend = "docker update --cpus 2 CONTAINER   # or the batch system's own request for cores"
        return warn(f"a quota of {quota:.2g} of a core: every step waits for it", mend)
    told = f"{usable} of {everyone} cores"
    if quota is not None and quota < allowed:
        told = f"{told}: a container's quota of {quota:.3g}"
        if (scene.environment.get("OMP_NUM_THREADS") or "x") not in map(str, range(1, usable + 1)):
            text = f"{told}; what asks the system starts {allowed} threads, which wait for it"
            return warn(text, setting("OMP_NUM_THREADS", usable))
        return ok(told)
    if allowed == 1 < everyone:
        return warn(
            f"{told}: this process is tied to one", "taskset -pc 0-$(($(nproc --all)-1)) $$"
        )
    return ok(told)


def threads(scene: Scene) -> Result:
    """OMP_NUM_THREADS and its like are numbers, and go with the cores."""
    from autotrain.probe.limits import usable_cores

    usable = usable_cores(scene.root)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT"):
        told = scene.environment.get(name)
        if told is None:
            continue
        if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", told):
            return fail(f"{name} is {told!r}, which is no number of threads", unsetting(name))
        first = int(told.split(",")[0])
        if first > usable and name != "OMP_THREAD_LIMIT":
            detail = (
                f"{name} is {first}, and there are {usable} cores: threads wait for one another"
            )
            return warn(detail, setting(name, usable))
    bound = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PROC_BIND")
    for name in bound:
        told = scene.environment.get(name, "")
        if told and told.lower() not in ("false", "none", "disabled"):
            return warn(f"{name} is {told!r}: loader workers may share one core", unsetting(name))
    return ok(f"nothing set that does not go with {usable} cores")


def debugging(scene: Scene) -> Result:
    """No variable is left from a search for errors, and makes every step slower."""
    for name, harmless in _SLOWING.items():
        told = scene.environment.get(name)
        if told is not None and told.lower() not in harmless:
            return warn(f"{name} is {told!r}: steps are slower for it", unsetting(name))
    return ok("none is set")


def load(scene: Scene) -> Result:
    """Other programs leave the cores to training."""
    if not hasattr(os, "getloadavg"):
        return skip("this system does not tell")
    busy, everyone = os.getloadavg()[0], os.cpu_count() or 1
    told = f"{busy:.1f} programs want {everyone} cores (mean of the last minute)"
    if busy > everyone:
        return warn(told, busiest("cpu"))
    return ok(told)


def instructions(scene: Scene) -> Result:
    """AVX2 at least; whether bf16 is computed by the processor itself (AVX-512, AMX)."""
    from autotrain.probe.processor import BF16_FEATURES, probe_cpu

    cpu = probe_cpu(scene.root)
    native = sorted(BF16_FEATURES & set(cpu.features))
    bf16 = f"bf16 by {', '.join(native)}" if native else "no bf16 of its own"
    told = f"{cpu.name}; {bf16}"
    intel = platform.machine().lower() in ("x86_64", "amd64")
    if intel and "avx2" not in cpu.features:
        return warn(f"{told}; no AVX2, so steps take several times as long", "use another machine")
    return ok(told)


def governor(scene: Scene) -> Result:
    """The clock is not held at its lowest."""
    folder = scene.root / "sys/devices/system/cpu"
    policies = sorted(folder.glob("cpu[0-9]*/cpufreq/scaling_governor"))
    held = [p for p in policies if word(p) == "powersave" and not _adapts(p)]
    if not policies:
        return skip("this system does not tell (a virtual machine, or not Linux)")
    if held:
        mend = "sudo cpupower frequency-set -g performance"
        return warn(f"powersave on {len(held)} of {len(policies)} cores", mend)
    return ok(word(policies[0]))


def battery(scene: Scene) -> Result:
    """A laptop is plugged in."""
    if not sys.platform.startswith("linux"):
        return _battery_by_psutil()
    from autotrain.probe.power import own_batteries

    supplies = scene.root / "sys/class/power_supply"
    own = own_batteries(supplies) if supplies.is_dir() else []
    if not own:
        return skip("no battery")
    mains = [word(s / "online") for s in supplies.iterdir() if word(s / "type") in ("Mains", "USB")]
    discharging = any(word(s / "status") == "Discharging" for s in own)
    if discharging or (mains and "1" not in mains):
        left = word(own[0] / "capacity")
        return warn(f"on battery, {left or '?'} % left: slower, and not for long", "plug it in")
    return ok("plugged in")


def _battery_by_psutil() -> Result:
    import psutil

    told = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if told is None:
        return skip("no battery")
    if told.power_plugged is False:
        return warn(
            f"on battery, {told.percent:.0f} % left: slower, and not for long", "plug it in"
        )
    return ok("plugged in")


def throttled(scene: Scene) -> Result:
    """A container's quota does not hold this process up."""
    from autotrain.probe.limits import cgroup_folders

    for folder in cgroup_folders("cpu", scene.root):
        words = scene.text(str((folder / "cpu.stat").relative_to(scene.root))).split()
        told = dict(zip(words[::2], words[1::2], strict=False))
        periods, held = (int(told.get(name, "0")) for name in ("nr_periods", "nr_throttled"))
        if periods > 100 and held > 0.25 * periods:
            share = held / periods
            mend = "docker update --cpus N CONTAINER   # or fewer threads: --set device.threads=N"
            return warn(f"it was held up in {share:.0%} of its time slices", mend)
    return ok("it is not held up")


def _adapts(path: Path) -> bool:
    """Drivers whose `powersave` goes up to the highest clock where there is work."""
    return word(path.with_name("scaling_driver")) in ("intel_pstate", "amd-pstate-epp")
