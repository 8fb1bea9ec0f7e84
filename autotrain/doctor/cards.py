"""What is known of the GPUs: what the system and NVIDIA's driver show, and what is left to us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.scene import Scene, word
from autotrain.doctor.wheels import wheel

NONE = "no NVIDIA GPU here"
_NVIDIA = "0x10de"
# Within a processor, and without kernels in torch's wheels for ROCm (LLVM's names of AMD GPUs).
_INTEGRATED = ("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037",
               "gfx1103")  # fmt: skip


def on_bus(scene: Scene, vendor: str) -> int:
    """GPUs of a maker on the PCI bus, driver or not."""
    found = 0
    for device in sorted((scene.root / "sys/bus/pci/devices").glob("*")):
        words = [word(device / name) for name in ("vendor", "class")]
        found += words[0] == vendor and words[1].startswith(("0x03", "0x12"))
    return found


def nvidia(scene: Scene) -> bool:
    """Whether there is a GPU of NVIDIA's, driver or not; in WSL Windows brings its driver."""
    kernel = bool(scene.text("proc/driver/nvidia/version"))
    files = any((scene.root / "dev").glob("nvidia[0-9]*"))
    windows = any((scene.root / "usr/lib/wsl/drivers").glob("nv*"))
    return kernel or files or windows or on_bus(scene, _NVIDIA) > 0


def wsl(scene: Scene) -> bool:
    """Whether this is Linux within Windows."""
    return "microsoft" in scene.text("proc/sys/kernel/osrelease").lower()


def driver(scene: Scene) -> dict[str, Any] | None:
    """NVIDIA's driver: its version, and the CUDA that it serves."""
    try:
        found: dict[str, Any] | None = scene.nvml().get("driver")
    except NoAnswerError:
        return None
    return found


def shown(scene: Scene, what: str = "gpus") -> list[dict[str, Any]]:
    """By GPU, in the driver's order, hidden ones too; none where it does not answer."""
    try:
        found: list[dict[str, Any]] = scene.nvml().get(what, [])
    except NoAnswerError:
        return []
    return found


def ours(scene: Scene, what: str = "gpus") -> list[tuple[int, dict[str, Any]]]:
    """Those of them that CUDA_VISIBLE_DEVICES leaves to this process, by the driver's index."""
    told = shown(scene, what)
    indices = _visible(scene, scene.environment)
    if indices is None and "CUDA_VISIBLE_DEVICES" in scene.environment:
        uuids = {f"GPU-{each.get('uuid')}" for each in of_torch(scene)}
        indices = [i for i, gpu in enumerate(shown(scene)) if gpu["uuid"] in uuids] or None
    return [(i, each) for i, each in enumerate(told) if indices is None or i in indices]


def for_torch(scene: Scene) -> list[str]:
    """Names of the GPUs here of the maker that torch is built for, hidden ones too."""
    return amd(scene) if rocm() else [gpu["name"] for gpu in shown(scene)]


def left(scene: Scene, hiding: Mapping[str, str]) -> int | None:
    """How many of these such variables leave; None where only CUDA can tell."""
    if not rocm():
        seen = _visible(scene, {**hiding, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
        return None if seen is None else len(seen)
    count = len(amd(scene))
    for told in hiding.values():  # HIP numbers what ROCr leaves
        names = [name.strip() for name in told.split(",")]
        good = [name.startswith("GPU-") or (name.isdigit() and int(name) < count) for name in names]
        count = [*good, False].index(False)
    return count


def hiding(scene: Scene) -> dict[str, str]:
    """The variables that hide GPUs from this torch, in the order in which they count."""
    own = "CUDA_VISIBLE_DEVICES"
    if rocm() and "HIP_VISIBLE_DEVICES" in scene.environment:
        own = "HIP_VISIBLE_DEVICES"
    names = ("ROCR_VISIBLE_DEVICES", own) if rocm() else (own,)
    return {name: scene.environment[name] for name in names if name in scene.environment}


def rocm() -> bool:
    """Whether torch is built for AMD's GPUs."""
    torch = wheel("torch")
    return torch is not None and torch.hip is not None


def amd(scene: Scene) -> list[str]:
    """AMD GPUs that ROCm's driver shows and this container has, those within a processor aside."""
    if not (scene.root / "dev/kfd").exists():
        return []
    nodes = sorted((scene.root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"))
    found, told = list[str](), False
    for node in nodes:
        each = dict(re.findall(r"^(\w+) (\d+)$", word(node), re.MULTILINE))
        version, render = int(each.get("gfx_target_version", 0)), each.get("drm_render_minor")
        told |= "gfx_target_version" in each  # Linux 5.13 and later
        name = f"gfx{version // 10_000}{version // 100 % 100:x}{version % 100:x}"
        here = (scene.root / f"dev/dri/renderD{render}").exists()
        if version and here and name not in _INTEGRATED:
            found.append(f"AMD {name}")
    return found if told else ["an AMD GPU"]


def of_torch(scene: Scene) -> list[dict[str, Any]]:
    """The GPUs that torch can use; none where it cannot be asked."""
    try:
        found: list[dict[str, Any]] = scene.asked.answer("cuda")["devices"] if scene.torch() else []
    except NoAnswerError:
        return []
    return found


def _visible(scene: Scene, environment: Mapping[str, str]) -> list[int] | None:
    """The driver's indices of GPUs that such variables leave; None where only CUDA can tell."""
    gpus = shown(scene)
    if not gpus:
        return []
    from autotrain.nvml import NvmlGpu
    from autotrain.probe.gpus import visible_gpus

    found = [
        NvmlGpu(
            gpu["name"], gpu["uuid"], gpu["total_bytes"], gpu["free_bytes"], (0, 0),
            split=gpu.get("split", False),
        )
        for gpu in gpus
    ]  # fmt: skip
    seen = visible_gpus(found, environment)
    by_object = {id(gpu): index for index, gpu in enumerate(found)}
    return None if seen is None else [by_object[id(gpu)] for gpu in seen]
