"""GPUs: whether there are any, whether torch sees them, and whether it was built for them."""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import Any

from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.mending import for_driver, matching_torch
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene, word
from autotrain.doctor.wheels import wheel

NVIDIA = "0x10de"
NONE = "no NVIDIA GPU here"
# The package index's wheels are built from 7.5 (Turing) on; those for CUDA 12.6 from 5.0 on.
_OLDEST, _OLD_WHEELS = (7, 5), "cu126"
_SHIPPED = (13, 0)


def driver(scene: Scene) -> Result:
    """NVIDIA's driver answers."""
    try:
        told = scene.nvml()
    except NoAnswerError as error:
        if not _nvidia(scene):
            return skip(NONE)
        return fail(f"asking the driver: {error}", "sudo reboot")
    if not told["error"]:
        if not told["gpus"]:
            return skip("the driver runs, and shows no GPU")
        version = (told["driver"] or {}).get("version", "unknown")
        return ok(f"{version}: {', '.join(gpu['name'] for gpu in told['gpus'])}")
    if not _nvidia(scene):
        return skip(NONE)
    return _no_answer(told["error"], scene)


def _no_answer(said: str, scene: Scene) -> Result:
    """What it means that there is a GPU, and the driver does not say so."""
    if "mismatch" in said.lower():
        text = f"the driver was updated while the old one runs (NVML: {said})"
        return fail(text, "sudo reboot")
    if "Not Found" in said or "pynvml" in said:
        if scene.text("proc/driver/nvidia/version"):
            text = "the kernel has NVIDIA's driver, and its library libnvidia-ml.so.1 is not here"
            mend = "docker run --gpus all ...   # no container: sudo ubuntu-drivers install"
            return fail(f"{text}: a container without GPUs, or half a driver", mend)
        if _wsl(scene):
            mend = "wsl.exe --update   # and NVIDIA's driver for Windows, none within WSL"
            return fail("WSL shows a GPU, and /usr/lib/wsl/lib has no libnvidia-ml.so.1", mend)
        return fail(
            "there is an NVIDIA GPU, and no driver", "sudo ubuntu-drivers install && sudo reboot"
        )
    return fail(f"NVML: {said}", "sudo modprobe nvidia && nvidia-smi")


def device_files(scene: Scene) -> Result:
    """The files by which programs reach the GPU can be opened."""
    found = sorted((scene.root / "dev").glob("nvidia[0-9]*"))
    if not found:
        return skip("no /dev/nvidia0")
    needed = [*found, scene.root / "dev/nvidiactl", scene.root / "dev/nvidia-uvm"]
    for path in needed:
        if not path.exists():
            text = f"/dev/{path.name} is missing: CUDA cannot start"
            return fail(text, "sudo modprobe nvidia_uvm && sudo nvidia-modprobe -u -c=0")
        if not os.access(path, os.R_OK | os.W_OK):
            text = f"/dev/{path.name} may not be opened by this user"
            return fail(text, 'sudo usermod -aG video,render "$USER"   # then log in again')
    return ok(f"{len(found)} of GPUs, and the driver's own")


def generation(scene: Scene) -> Result:
    """The driver serves the CUDA that torch was built for."""
    told, torch = _driver(scene), wheel("torch")
    if told is None or torch is None or torch.cuda is None:
        return skip("no driver" if told is None else "torch is built without CUDA")
    serves = tuple(told["cuda"])
    needs = tuple(int(part) for part in torch.cuda.split("."))
    text = f"driver {told['version']} serves CUDA {serves[0]}.{serves[1]}, torch needs {torch.cuda}"
    if serves[0] < needs[0]:
        folder = for_driver(serves)
        update = "sudo ubuntu-drivers install && sudo reboot"
        return fail(f"{text}: torch sees no GPU", matching_torch(folder) if folder else update)
    return ok(text)


def seen(scene: Scene) -> Result:
    """torch sees the GPUs that the driver shows."""
    here = _listed(scene)
    try:
        told = scene.asked.answer("cuda") if scene.torch() else {}
    except NoAnswerError as error:
        if not here:
            return skip("no GPU, and torch cannot be asked")
        return fail(f"torch, asked for its GPUs: {error}", matching_torch())
    found = told["devices"]
    if stuck := next((each for each in found if each["problem"]), None):
        return fail(f"{stuck['name']}: {stuck['problem']}", "nvidia-smi   # who holds it: kill PID")
    if found:
        return ok(f"{len(found)}: {', '.join(each['name'] for each in found)}")
    if not here:
        return skip("no GPU that torch could use: it trains on the CPU")
    torch = wheel("torch")
    text = f"{', '.join(here)}: there, and torch sees none"
    if torch is not None and torch.cuda is None and torch.hip is None:
        serves = (_driver(scene) or {}).get("cuda") or _SHIPPED
        folder = for_driver(tuple(serves))
        linux = folder == "cu130" and sys.platform.startswith("linux")
        return fail(f"{text}: it is built for a CPU", matching_torch("" if linux else folder))
    if scene.environment.get("CUDA_VISIBLE_DEVICES") is not None:
        return skip(f"{text}: CUDA_VISIBLE_DEVICES hides them")
    complaint = told["complaint"] or "it does not say why"
    return fail(f"{text}: {complaint}", "nvidia-smi   # see `driver`, `driver and CUDA` above")


def hidden(scene: Scene) -> Result:
    """No variable hides GPUs."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        told = scene.environment.get(name)
        if told is None:
            continue
        here = _listed(scene)
        if not here:
            return skip(f"{name} is {told!r}, and there is no GPU to hide")
        chosen = _chosen(told, scene)
        if chosen < len(here):
            text = f"{name} is {told!r}: {chosen} of {len(here)} GPUs can be used"
            return (fail if not chosen else warn)(text, f"unset {name}")
    return ok("all are shown") if _listed(scene) else skip("no GPU that could be hidden")


def built_for(scene: Scene) -> Result:
    """torch has kernels for this GPU (its compute capability)."""
    told = _cuda(scene)
    if not told["devices"]:
        return skip("no GPU that torch could use")
    wheels, torch = told["architectures"], wheel("torch")
    for each in told["devices"]:
        capability = tuple(each["capability"])
        name = each["architecture"].partition(":")[0]
        if not (name in wheels if name else _serves(wheels, capability)):
            text = f"{each['name']} is {name or '.'.join(map(str, capability))}"
            made = f"torch {torch.build if torch else ''} has kernels for {', '.join(wheels)}"
            folder = "" if name or capability >= _OLDEST else _OLD_WHEELS
            return fail(f"{text}, {made}", matching_torch(folder))
    return ok(", ".join(f"{d['name']}: {_capability(d)}" for d in told["devices"]))


def rocm(scene: Scene) -> Result:
    """An AMD GPU has its driver, this user may use it, and torch is built for it."""
    kfd = scene.root / "dev/kfd"
    torch = wheel("torch")
    if not kfd.exists():
        if torch is not None and torch.hip is not None:
            mend = "sudo amdgpu-install --usecase=rocm && sudo reboot"
            return fail("torch is built for ROCm, and there is no /dev/kfd", mend)
        return skip("no AMD GPU with ROCm's driver here")
    if not os.access(kfd, os.R_OK | os.W_OK):
        mend = 'sudo usermod -aG render,video "$USER"   # then log in again'
        return fail("/dev/kfd may not be opened by this user", mend)
    if torch is not None and torch.hip is None:
        text = f"an AMD GPU is here, and torch is built for {torch.made_for}: it is not used"
        return warn(text, matching_torch("rocm7.2"))
    return ok(f"torch for ROCm {torch.hip}" if torch is not None else "there")


def mps(scene: Scene) -> Result:
    """An Apple GPU can be used."""
    if sys.platform != "darwin":
        return skip("not a Mac")
    if platform.machine() != "arm64":
        return skip("a Mac with an Intel processor")
    told = scene.asked.answer("mps")
    if told["there"]:
        fallback = scene.environment.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1"
        return ok("torch uses it" + ("; what it lacks runs on the CPU" if fallback else ""))
    if not told["built"]:
        return fail("torch is built without it", matching_torch())
    return fail(
        f"macOS {platform.mac_ver()[0]} is too old for it", "softwareupdate --install --all"
    )


def wsl(scene: Scene) -> Result:
    """WSL 2, with the driver of Windows, and data on its own disk."""
    if not _wsl(scene):
        return skip("not WSL")
    if not (scene.root / "dev/dxg").exists():
        return warn(
            "no /dev/dxg: WSL 1, or no GPU driver in Windows", "wsl.exe --set-version DISTRO 2"
        )
    place = scene.root / "mnt"
    if scene.where.resolve().is_relative_to(place.resolve() / "c"):
        return warn("runs go to a Windows disk (/mnt/c), which is slow from here", "cd ~")
    return ok("WSL 2 with a GPU")


# --- what is known of the GPUs -------------------------------------------------------------------


def cards(scene: Scene, vendor: str) -> int:
    """GPUs of a maker on the PCI bus, driver or not."""
    found = 0
    for device in sorted((scene.root / "sys/bus/pci/devices").glob("*")):
        words = [word(device / name) for name in ("vendor", "class")]
        found += words[0] == vendor and words[1].startswith(("0x03", "0x12"))
    return found


def _nvidia(scene: Scene) -> bool:
    """Whether there is a GPU of NVIDIA's, driver or not; in WSL Windows brings its driver."""
    kernel = bool(scene.text("proc/driver/nvidia/version"))
    files = any((scene.root / "dev").glob("nvidia[0-9]*"))
    windows = any((scene.root / "usr/lib/wsl/drivers").glob("nv*"))
    return kernel or files or windows or cards(scene, NVIDIA) > 0


def _wsl(scene: Scene) -> bool:
    return "microsoft" in scene.text("proc/sys/kernel/osrelease").lower()


def _driver(scene: Scene) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] | None = scene.nvml().get("driver")
    except NoAnswerError:
        return None
    return found


def _listed(scene: Scene) -> list[str]:
    """Names of the GPUs that the driver shows, hidden ones too."""
    try:
        return [gpu["name"] for gpu in scene.nvml()["gpus"]]
    except NoAnswerError:
        return []


def _cuda(scene: Scene) -> dict[str, Any]:
    scene.torch()
    return scene.asked.answer("cuda")


def _chosen(told: str, scene: Scene) -> int:
    """How many of the driver's GPUs such a list leaves."""
    from autotrain.nvml import NvmlGpu
    from autotrain.probe.gpus import visible_gpus

    found = [
        NvmlGpu(gpu["name"], gpu["uuid"], gpu["total_bytes"], gpu["free_bytes"], (0, 0))
        for gpu in scene.nvml()["gpus"]
    ]
    seen = visible_gpus(found, {"CUDA_VISIBLE_DEVICES": told})
    return len(found) if seen is None else len(seen)


def _serves(wheels: list[str], capability: tuple[int, ...]) -> bool:
    """A kernel serves later GPUs of its generation; what is compiled at the start, all later."""
    for name in wheels:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name)
        if found is None:
            continue
        made = (int(found[2]), int(found[3]))
        same = made[0] == capability[0] and made <= capability
        if same or (found[1] == "compute" and made <= capability):
            return True
    return False


def _capability(device: dict[str, Any]) -> str:
    return device["architecture"] or ".".join(map(str, device["capability"]))
