"""GPUs: whether there are any, whether torch sees them, and whether it was built for them."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from autotrain.doctor import cards
from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.cards import NONE
from autotrain.doctor.fitting import ROCM, torch_that_fits
from autotrain.doctor.mending import for_driver, matching_torch
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import kernel_log, reboot, unsetting
from autotrain.doctor.wheels import wheel


def driver(scene: Scene) -> Result:
    """NVIDIA's driver answers."""
    try:
        told = scene.nvml()
    except NoAnswerError as error:
        if not cards.nvidia(scene):
            return skip(NONE)
        return fail(f"asking the driver: {error}", reboot())
    if not told["error"]:
        if not told["gpus"]:
            return skip("the driver runs, and shows no GPU")
        version = (told["driver"] or {}).get("version", "unknown")
        return ok(f"{version}: {', '.join(gpu['name'] for gpu in told['gpus'])}")
    if not cards.nvidia(scene):
        return skip(NONE)
    return _no_answer(told["error"], scene)


def _no_answer(said: str, scene: Scene) -> Result:
    """What it means that there is a GPU, and the driver does not say so."""
    if "mismatch" in said.lower():
        text = f"the driver was updated while the old one runs (NVML: {said})"
        return fail(text, reboot())
    if "Not Found" in said or "pynvml" in said:
        if scene.text("proc/driver/nvidia/version"):
            text = "the kernel has NVIDIA's driver, and its library libnvidia-ml.so.1 is not here"
            mend = "docker run --gpus all ...   # no container: sudo ubuntu-drivers install"
            return fail(f"{text}: a container without GPUs, or half a driver", mend)
        if cards.wsl(scene):
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
    fault = next((fault for path in needed if (fault := _closed(path)) is not None), None)
    # CUDA makes what is missing as it starts, and needs the files of its own GPUs alone.
    if fault is not None and not cards.of_torch(scene):
        return fault
    return ok(f"{len(found)} of GPUs, and the driver's own")


def _closed(path: Path) -> Result | None:
    """What is wrong with such a file; None where nothing is."""
    if not path.exists():
        text = f"/dev/{path.name} is missing: CUDA cannot start"
        return fail(text, "sudo modprobe nvidia_uvm && sudo nvidia-modprobe -u -c=0")
    if not os.access(path, os.R_OK | os.W_OK):
        text = f"/dev/{path.name} may not be opened by this user"
        return fail(text, 'sudo usermod -aG video,render "$USER"   # then log in again')
    return None


def generation(scene: Scene) -> Result:
    """The driver serves the CUDA that torch was built for."""
    told, torch = cards.driver(scene), wheel("torch")
    if told is None or torch is None or torch.cuda is None:
        return skip("no driver" if told is None else "torch is built without CUDA")
    serves = tuple(told["cuda"])
    needs = tuple(int(part) for part in torch.cuda.split("."))
    text = f"driver {told['version']} serves CUDA {serves[0]}.{serves[1]}, torch needs {torch.cuda}"
    if serves[0] < needs[0]:
        update = "sudo ubuntu-drivers install && sudo reboot"
        mend = torch_that_fits(scene) if for_driver(serves) else update
        return fail(f"{text}: torch sees no GPU", mend)
    return ok(text)


def seen(scene: Scene) -> Result:
    """torch sees the GPUs that the driver shows."""
    here = cards.for_torch(scene)
    try:
        told = _cuda(scene)
    except NoAnswerError as error:
        if not here:
            return skip("no GPU, and torch cannot be asked")
        return fail(f"torch, asked for its GPUs: {error}", torch_that_fits(scene))
    found = told["devices"]
    if stuck := next((each for each in found if each["problem"]), None):
        return fail(f"{stuck['name']}: {stuck['problem']}", "nvidia-smi   # who holds it: kill PID")
    listed = f"{len(found)}: {', '.join(each['name'] for each in found)}"
    hiding = cards.hiding(scene)
    expected = cards.left(scene, hiding) or 0
    if found and len(found) >= expected:
        return ok(listed)
    look = f"{'rocminfo' if cards.rocm() else 'nvidia-smi'}   # "
    if found:
        text = f"torch sees {listed}; the driver shows {expected}"
        return warn(text, f"{look}and: {kernel_log()}")
    if not here:
        return skip("no GPU that torch could use: it trains on the CPU")
    text, torch = f"{', '.join(here)}: there, and torch sees none", wheel("torch")
    if torch is not None and torch.cuda is None and torch.hip is None:
        return fail(f"{text}: it is built for a CPU", torch_that_fits(scene))
    if hiding and not expected:
        return skip(f"{text}: {' and '.join(hiding)} hide them")
    complaint = told["complaint"] or "it does not say why"
    return fail(f"{text}: {complaint}", f"{look}see `driver`, `driver and CUDA`, `ROCm`")


def hidden(scene: Scene) -> Result:
    """No variable hides GPUs."""
    here, hiding = cards.for_torch(scene), cards.hiding(scene)
    for name, told in hiding.items():
        if not here:
            return skip(f"{name} is {told!r}, and there is no GPU to hide")
        chosen = cards.left(scene, {name: told})
        fewer = len(cards.of_torch(scene)) < len(here)  # an empty one may count as none
        if chosen is not None and chosen < len(here) and fewer:
            text = f"{name} is {told!r}: {chosen} of {len(here)} GPUs can be used"
            return (fail if not chosen else warn)(text, unsetting(name))
    return ok("all are shown") if here else skip("no GPU that could be hidden")


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
            return fail(f"{text}, {made}", torch_that_fits(scene))
    return ok(", ".join(f"{d['name']}: {_capability(d)}" for d in told["devices"]))


def rocm(scene: Scene) -> Result:
    """An AMD GPU has its driver, this user may use it, and torch is built for it."""
    kfd, torch = scene.root / "dev/kfd", wheel("torch")
    if not kfd.exists():
        if torch is not None and torch.hip is not None:
            mend = "sudo amdgpu-install --usecase=rocm && sudo reboot"
            return fail("torch is built for ROCm, and there is no /dev/kfd", mend)
        return skip("no AMD GPU with ROCm's driver here")
    if torch is None or torch.hip is None:
        if cards.shown(scene):
            return skip("an AMD GPU beside NVIDIA's, which goes first")
        if not (here := cards.amd(scene)):
            return skip("no AMD GPU that torch's wheels have kernels for")
        made = torch.made_for if torch is not None else "nothing"
        text = f"{', '.join(here)}: here, and torch is built for {made}: not used"
        return warn(text, matching_torch(ROCM))
    if not os.access(kfd, os.R_OK | os.W_OK):
        mend = 'sudo usermod -aG render,video "$USER"   # then log in again'
        return fail("/dev/kfd may not be opened by this user", mend)
    return ok(f"torch for ROCm {torch.hip}")


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
        return fail("torch is built without it", torch_that_fits(scene))
    return fail(
        f"macOS {platform.mac_ver()[0]} is too old for it", "softwareupdate --install --all"
    )


def wsl(scene: Scene) -> Result:
    """WSL 2, with the driver of Windows, and data on its own disk."""
    if not cards.wsl(scene):
        return skip("not WSL")
    if not (scene.root / "dev/dxg").exists():
        return warn(
            "no /dev/dxg: WSL 1, or no GPU driver in Windows", "wsl.exe --set-version DISTRO 2"
        )
    place = scene.root / "mnt"
    if scene.where.resolve().is_relative_to(place.resolve() / "c"):
        return warn("runs go to a Windows disk (/mnt/c), which is slow from here", "cd ~")
    return ok("WSL 2 with a GPU")


def _cuda(scene: Scene) -> dict[str, Any]:
    scene.torch()
    return scene.asked.answer("cuda")


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
