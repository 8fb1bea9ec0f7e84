"""Which torch fits this machine: its GPUs, and what their driver serves."""

from __future__ import annotations

import sys

from autotrain.doctor import cards
from autotrain.doctor.mending import BUILDS, matching_torch
from autotrain.doctor.scene import Scene
from autotrain.doctor.wheels import wheel

ROCM = "rocm7.2"
# Compute capabilities that wheels of torch 2.11 have kernels for: from the first, below the second
# (https://github.com/pytorch/pytorch/blob/main/RELEASE.md, "CUDA Support Matrix").
_KERNELS = {"cu130": ((7, 5), (13, 0)), "cu128": ((7, 5), (13, 0)), "cu126": ((5, 0), (10, 0))}
_SHIPPED = (13, 0)


def torch_that_fits(scene: Scene) -> str:
    """A command that installs torch and its companions anew, made for what is here."""
    amd = cards.rocm() or (cards.amd(scene) and not cards.nvidia(scene))
    folder = ROCM if amd else _for_nvidia(scene)
    shipped = folder == BUILDS[_SHIPPED] and sys.platform.startswith("linux")
    return matching_torch("" if shipped else folder)


def _for_nvidia(scene: Scene) -> str:
    """A folder of torch's own index; empty for the package index, or where none serves."""
    driver, torch = cards.driver(scene), wheel("torch")
    major, _, minor = ((torch and torch.cuda) or "0.0").partition(".")
    now = BUILDS.get((int(major), int(minor)), "")
    gpus = [*(gpu for _, gpu in cards.ours(scene)), *cards.of_torch(scene)]
    known = [tuple(gpu["capability"]) for gpu in gpus if gpu.get("capability", (0, 0))[0]]
    if driver is None and not known:  # no GPU, or nobody tells: what is there was chosen
        return now
    serves = tuple(driver["cuda"]) if driver is not None and driver["cuda"][0] else _SHIPPED
    fits = [name for cuda, name in BUILDS.items() if cuda[0] <= serves[0] and _run(name, known)]
    return now if now in fits else next(iter(fits), "")


def _run(folder: str, capabilities: list[tuple[int, ...]]) -> bool:
    """Whether the wheels in such a folder have kernels for these GPUs."""
    oldest, newest = _KERNELS[folder]
    return all(oldest <= each < newest for each in capabilities)
