"""Whether torch, torchaudio and torchvision fit one another and what they need: by their files.

A wrong pair crashes as it is imported, so nothing is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from autotrain.doctor import elf
from autotrain.doctor.fitting import torch_that_fits
from autotrain.doctor.mending import install
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import shown, unsetting
from autotrain.doctor.wheels import WHEELS, Wheel, damaged, wheel

# Libraries that wheels bring, of torch or of NVIDIA. Others are the system's.
_OURS = re.compile(
    r"lib(torch|c10|caffe2|shm\b|gomp|cu(da|blas|dnn|fft|file|pti|rand|solver|sparse|dart)|nv"
    r"|nccl|amdhip|roc|hip|miopen|rccl)"
)
# Of these, what the driver brings and not a wheel.
_DRIVERS = re.compile(r"lib(cuda\.so|nvidia-)")
_CUDA_LIBRARIES = re.compile(r"lib(cudnn|cublas|cudart|nccl|cusparse|cusolver|nvrtc)[\w]*\.so")


def torch_is_there(scene: Scene) -> Result:
    """torch 2.11 is installed, metadata and code."""
    found = wheel("torch")
    if found is None:
        return fail("torch is not installed here", torch_that_fits(scene))
    told = f"{found.build}, built for {found.made_for}"
    if found.build.partition("+")[0] != found.version.partition("+")[0]:
        mend = torch_that_fits(scene)
        return fail(f"{told}; pip holds it for {found.version}: two installs in one", mend)
    if found.release[:2] != (2, 11):
        return fail(f"{told}; autotrain is made for 2.11", torch_that_fits(scene))
    return ok(told)


def whole(scene: Scene) -> Result:
    """The libraries of torch, its companions and NVIDIA are as long as when they were installed."""
    found = [each for name in WHEELS if (each := wheel(name)) is not None]
    if not found:
        return skip("no torch")
    wrong = {d: names for d in [w.distribution for w in found] + _nvidia() if (names := damaged(d))}
    if not wrong:
        return ok(f"of {', '.join(each.name for each in found)} and {len(_nvidia())} of NVIDIA's")
    listed = [f"{d.metadata['Name']}: {_listed(names)}" for d, names in wrong.items()]
    mend = install(
        *(f"{d.metadata['Name']}=={d.version}" for d in wrong),
        flags="--force-reinstall --no-deps --no-cache-dir",
    )
    return fail(f"{'; '.join(listed)}: gone, or not as long as it was installed", mend)


def libraries(scene: Scene) -> Result:
    """What torch's libraries need of CUDA's is there."""
    found = wheel("torch")
    if found is None or not sys.platform.startswith("linux"):
        return skip("no torch" if found is None else "told on Linux alone")
    try:
        absent = _absent([p for p in found.native if "libtorch" in p.name], found, scene)
    except ValueError as error:
        return fail(f"a library of torch's cannot be read: {error}", torch_that_fits(scene))
    if absent:
        return fail(f"torch needs {_listed(absent)}, found nowhere", _bring(absent, scene))
    return ok(f"torch {found.build} has what it needs")


def torchaudio(scene: Scene) -> Result:
    """torchaudio was made for this torch."""
    return _fits("torchaudio", scene)


def torchvision(scene: Scene) -> Result:
    """torchvision was made for this torch."""
    return _fits("torchvision", scene)


def search_path(scene: Scene) -> Result:
    """LD_LIBRARY_PATH brings no CUDA libraries beside those of torch's wheels."""
    told = scene.environment.get("LD_LIBRARY_PATH", "")
    for folder in filter(None, told.split(":")):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        others = sorted(name for name in names if _CUDA_LIBRARIES.match(name))
        if others and "site-packages" not in folder:
            return warn(
                f"LD_LIBRARY_PATH has {shown(folder)} with {others[0]}: torch may load that in "
                "place of its own",
                unsetting("LD_LIBRARY_PATH"),
            )
    if preload := scene.environment.get("LD_PRELOAD"):
        return warn(f"LD_PRELOAD is {shown(preload)}, in every process", unsetting("LD_PRELOAD"))
    return ok("brings no other CUDA libraries")


def _fits(name: str, scene: Scene) -> Result:
    torch, other = wheel("torch"), wheel(name)
    if torch is None:
        return skip("no torch to fit")
    if other is None:
        return fail(f"{name} is not installed here", torch_that_fits(scene))
    told = f"{name} {other.build} beside torch {torch.build}"
    wrong = _wrong(torch, other, scene)
    if wrong:
        return fail(f"{told}: {wrong}", torch_that_fits(scene))
    if _minor(other) != torch.release[1]:
        return warn(f"{told}: made for torch 2.{_minor(other)}", torch_that_fits(scene))
    return ok(told)


def _wrong(torch: Wheel, other: Wheel, scene: Scene) -> str:
    """Why `import` of the other one is bound to fail; empty where nothing says so."""
    if sys.platform.startswith("linux"):
        try:
            absent = _absent(other.native, torch, scene)
        except ValueError as error:
            return f"a library of it cannot be read: {error}"
        if absent:
            why = f"it needs {_listed(absent)}"
            if torch.cuda is None and other.cuda is not None:
                return (
                    f"it was built for {other.made_for} and {why}, which torch built for "
                    f"{torch.made_for} does not bring: `import {other.name}` fails"
                )
            return f"{why}, found nowhere: `import {other.name}` fails"
    if torch.cuda is not None and other.cuda is not None and not _same_cuda(torch, other):
        return (
            f"built for CUDA {other.cuda}, torch for CUDA {torch.cuda}: "
            f"`import {other.name}` refuses that"
        )
    wanted = _wanted_torch(other)
    if wanted and wanted != torch.build.partition("+")[0]:
        return f"it asks for torch {wanted}"
    return ""


def _same_cuda(torch: Wheel, other: Wheel) -> bool:
    """torchvision compares generations, torchaudio the whole version."""
    assert torch.cuda is not None
    assert other.cuda is not None
    if other.name == "torchvision":
        return torch.cuda.split(".")[0] == other.cuda.split(".")[0]
    return torch.cuda == other.cuda


def _wanted_torch(other: Wheel) -> str:
    """The torch that its metadata names: `torch (==2.11.0)`."""
    for line in other.distribution.requires or []:
        found = re.fullmatch(r"torch\s*\(?\s*==\s*([\d.]+)\s*\)?", line.partition(";")[0].strip())
        if found:
            return found[1]
    return ""


def _minor(wheel: Wheel) -> int:
    """Of the torch that it was made for: torchvision 0.26 goes with 2.11."""
    return wheel.release[1] - (15 if wheel.name == "torchvision" else 0)


# --- libraries that are needed and not there ------------------------------------------------------


def _absent(libraries: Iterable[Path], torch: Wheel, scene: Scene) -> list[str]:
    """Raises ValueError naming a library that cannot be read."""
    places = [torch.folder / "lib", *_searched(scene)]
    lost, broken = set[str](), set[str]()
    for library in libraries:
        try:
            wanted = elf.needs(library)
        except (ValueError, OSError) as error:
            raise ValueError(f"{library.name}: {error}") from None
        folders = [library.parent, *wanted.folders, *places]
        for name in filter(_a_wheels, wanted.names):
            seen = [each for place in folders if (each := _is_library(place / name)) is not None]
            if not seen:
                lost.add(name)
            elif not seen[0]:  # the loader takes the first, whatever it is
                broken.add(name)
    return sorted(broken | (lost - _system() if lost else lost))


def _searched(scene: Scene) -> Iterator[Path]:
    """Where torch itself looks for NVIDIA's wheels, and the loader for anything."""
    for entry in sys.path:
        folder = Path(entry or ".")
        for place in ("nvidia/*/lib", "torchvision.libs", "torchaudio.libs", "torch.libs"):
            yield from folder.glob(place)
    yield Path(sys.prefix) / "lib"  # conda's
    for entry in scene.environment.get("LD_LIBRARY_PATH", "").split(":"):
        if entry:
            yield Path(entry)


def _a_wheels(name: str) -> bool:
    """Whether wheels bring such a library, and not the system or the driver."""
    return bool(_OURS.match(name)) and not _DRIVERS.match(name)


def _is_library(path: Path) -> bool | None:
    """None where there is none. An empty file, or /dev/null over it, is one that does not load."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return None


def _system() -> set[str]:
    """Libraries that the loader knows by its cache."""
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"):
        try:
            done = subprocess.run(
                [program, "-p"], capture_output=True, text=True, timeout=5, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return {line.split()[0] for line in done.stdout.splitlines() if "=>" in line}
    return set()


def _bring(names: list[str], scene: Scene) -> str:
    """What installs those libraries anew."""
    owners = [
        f"{each.metadata['Name']}=={each.version}"
        for each in _nvidia()
        if any(f"/{name}," in (each.read_text("RECORD") or "") for name in names)
    ]
    if not owners:
        return torch_that_fits(scene)
    return install(*owners, flags="--force-reinstall --no-deps")


def _nvidia() -> list[Distribution]:
    """NVIDIA's wheels that are installed."""
    return [d for d in distributions() if (d.metadata["Name"] or "").startswith("nvidia-")]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
